import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.sparse import SparseMatrix, SparseRow

DENSE = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(-2, 3, np.random.default_rng(seed).integers(1, 7, 2))
)


def sparse(dense: np.ndarray) -> SparseMatrix:
    rows = [SparseRow(np.flatnonzero(r).astype(np.int32), r[np.flatnonzero(r)].astype(np.float32)) for r in dense]
    return SparseMatrix.of_rows(rows, dense.shape[1])


@given(DENSE, st.integers(0, 2**32 - 1))
def test_products_are_those_of_the_dense_matrix(dense: np.ndarray, seed: int) -> None:
    matrix, rng = sparse(dense), np.random.default_rng(seed)
    right, left = rng.normal(size=(dense.shape[1], 3)), rng.normal(size=(dense.shape[0], 2))
    np.testing.assert_allclose(matrix.dot(right), dense @ right, atol=1e-9)
    np.testing.assert_allclose(matrix.transposed_dot(left), dense.T @ left, atol=1e-9)
    np.testing.assert_allclose(matrix.row_sums(np.square(matrix.values)), np.square(dense).sum(axis=1))


def test_a_column_outside_the_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        SparseMatrix.of_rows([SparseRow(np.array([3], np.int32), np.ones(1, np.float32))], 3)
