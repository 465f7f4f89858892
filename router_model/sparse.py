"""Rows of few non-zero numbers (compressed sparse rows), with the two products that training needs; numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SparseRow:
    """One row: strictly increasing column numbers (int32) and their values (float32)."""

    columns: NDArray[np.int32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SparseMatrix:
    """A matrix [n_rows, n_columns]; entries of row i are those whose `row_of` is i, and `row_of` never decreases."""

    n_rows: int
    n_columns: int
    row_of: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]

    @classmethod
    def of_rows(cls, rows: Sequence[SparseRow], n_columns: int) -> "SparseMatrix":
        """Stack rows. ValueError if one has a column outside 0 … n_columns - 1."""
        lengths = [len(row.columns) for row in rows]
        columns = np.concatenate([np.zeros(0, np.int32), *(row.columns for row in rows)])
        values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])
        if columns.size and not (columns.min() >= 0 and columns.max() < n_columns):
            raise ValueError(f"a row has a column outside 0 … {n_columns - 1}")
        row_of = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
        return cls(len(rows), n_columns, row_of, columns, values)

    def dot(self, dense: NDArray[np.float64]) -> NDArray[np.float64]:
        """self @ dense: [n_columns, k] to [n_rows, k]."""
        products = [
            np.bincount(self.row_of, weights=self.values * column[self.columns], minlength=self.n_rows)
            for column in dense.T
        ]
        return np.stack(products, axis=1) if products else np.zeros((self.n_rows, 0))

    def transposed_dot(self, dense: NDArray[np.float64]) -> NDArray[np.float64]:
        """self.T @ dense: [n_rows, k] to [n_columns, k]."""
        products = [
            np.bincount(self.columns, weights=self.values * column[self.row_of], minlength=self.n_columns)
            for column in dense.T
        ]
        return np.stack(products, axis=1) if products else np.zeros((self.n_columns, 0))

    def row_sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum over each row of `values`, one per entry: [n_rows]."""
        return np.bincount(self.row_of, weights=values, minlength=self.n_rows).astype(np.float64)
