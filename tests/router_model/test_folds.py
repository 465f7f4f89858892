import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.folds import group_numbers, grouped_folds


@given(st.lists(st.integers(0, 30), min_size=60, max_size=90), st.integers(0, 99))
def test_no_group_is_parted_and_folds_are_even(names: list[int], seed: int) -> None:
    groups = group_numbers([str(name) for name in [*names, *range(31)]])
    folds = grouped_folds(groups, 5, np.random.default_rng(seed))
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def test_fewer_groups_than_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer folds"):
        grouped_folds(np.array([0, 0, 1]), 3, np.random.default_rng(0))
