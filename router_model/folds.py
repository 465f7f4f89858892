"""Folds for cross-validation that never part a group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def group_numbers(groups: Sequence[str]) -> NDArray[np.intp]:
    """Group names to 0, 1, … in sorted order of the names."""
    return np.unique(np.array(groups), return_inverse=True)[1].astype(np.intp)


def grouped_folds(groups: NDArray[np.intp], n_folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """A fold number for each row: groups in random order, each to the fold with the fewest rows so far.

    ValueError: fewer groups than folds.
    """
    sizes = np.bincount(groups)
    present = np.flatnonzero(sizes)
    if len(present) < n_folds:
        raise ValueError(f"{len(present)} groups cannot make {n_folds} folds: bring more data, or ask for fewer folds")
    # Large groups first: a small one can still even out the folds.
    shuffled = rng.permutation(present)
    ordered = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    fold_of = np.zeros(len(sizes), np.intp)
    filled = np.zeros(n_folds)
    for group in ordered:
        fold = int(filled.argmin())
        fold_of[group] = fold
        filled[fold] += sizes[group]
    return fold_of[groups]
