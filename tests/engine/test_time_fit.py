"""Non-negative least squares over measurements that come one at a time."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.time_fit import TimeFit


def best_error(features: np.ndarray, seconds: np.ndarray) -> float:
    """The least sum of squared relative errors: least squares over every subset of terms, where none is negative."""
    scaled, least = features / seconds[:, None], float(len(seconds))
    for size in range(1, features.shape[1] + 1):
        for chosen in itertools.combinations(range(features.shape[1]), size):
            found = np.linalg.lstsq(scaled[:, chosen], np.ones(len(seconds)), rcond=None)[0]
            if (found >= 0).all():
                least = min(least, float(((scaled[:, chosen] @ found - 1) ** 2).sum()))
    return least


@given(seed=st.integers(0, 2**16), n=st.integers(1, 4))
def test_no_non_negative_sum_comes_closer_to_what_was_measured(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    features, seconds = draw.uniform(0.1, 2.0, (12, n)), draw.uniform(0.5, 2.0, 12)
    fit = TimeFit(n, half_life=10)
    fit.anchor([(row.tolist(), float(s)) for row, s in zip(features, seconds, strict=True)], weight=12)
    assert min(fit.coefficients) >= 0
    error = sum((fit.predict(row.tolist()) / s - 1) ** 2 for row, s in zip(features, seconds, strict=True))
    assert error == pytest.approx(best_error(features, seconds), rel=1e-3)


def test_it_follows_a_machine_that_changes_its_speed() -> None:
    fit, draw = TimeFit(2, half_life=20), random.Random(0)
    fit.anchor([([1.0, 1.0], 1.0), ([1.0, 2.0], 1.0)], weight=1)
    for speed in (1.0, 7.0):
        for _ in range(400):
            x = draw.uniform(0, 5)
            fit.observe([1.0, x], speed * (0.5 + 0.25 * x))
        for x in (0.0, 2.0, 9.0):
            assert fit.predict([1.0, x]) == pytest.approx(speed * (0.5 + 0.25 * x), rel=0.1)


def test_what_the_anchor_says_of_another_kind_of_step_outlives_thousands_of_one_kind() -> None:
    fit = TimeFit(2, half_life=20)
    fit.anchor([([1.0, 0.0], 1.0), ([1.0, 1.0], 3.0)], weight=10)
    for _ in range(5000):
        fit.observe([1.0, 0.0], 1.0)
    assert fit.predict([1.0, 1.0]) == pytest.approx(3.0, rel=0.01)


def test_a_measurement_without_duration_is_passed_over() -> None:
    fit = TimeFit(1, half_life=20)
    fit.anchor([([1.0], 2.0)], weight=1)
    fit.observe([1.0], 0.0)
    assert fit.predict([3.0]) == pytest.approx(6.0)
