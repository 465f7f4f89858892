from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from router_model.calibration import (
    ISOTONIC_LABELS,
    CalibrationMap,
    Method,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    pool_adjacent_violators,
)
from router_model.logistic import Floats, sigmoid
from router_model.metrics import ece

WEIGHTED = st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=40)
POINTS = st.lists(st.tuples(st.integers(-8, 8), st.floats(0, 1)), min_size=2, max_size=60)


@given(WEIGHTED)
def test_pooling_is_that_of_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    values, weights = np.array(pairs).T
    ours = pool_adjacent_violators(values, weights)
    theirs = IsotonicRegression().fit(np.arange(len(values)), values, sample_weight=weights).predict(range(len(values)))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@given(POINTS, st.lists(st.floats(-10, 10), max_size=10))
def test_the_isotonic_map_is_that_of_scikit_learn_between_and_beyond_its_knots(
    points: list[tuple[int, float]], asked: list[float]
) -> None:
    logits, targets = np.array(points, np.float64).T
    ours = fit_isotonic(logits, targets)
    margin = 0.5 / len(logits)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits, targets)
    at = np.array([*logits, *asked])
    expected = np.interp(at, theirs.X_thresholds_, np.clip(theirs.y_thresholds_, margin, 1 - margin))
    np.testing.assert_allclose(ours.apply(at), expected, atol=1e-6)
    grid = ours.apply(np.linspace(-12, 12, 200))
    assert (np.diff(grid) >= -1e-12).all()
    assert grid.min() > 0
    assert grid.max() < 1


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_a_map_repairs_overconfident_logits(fit: Callable[[Floats, Floats], CalibrationMap]) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4_000)
    targets = (rng.random(4_000) < sigmoid(truth)).astype(float)
    overconfident = 4 * truth + 1
    fitted = fit(overconfident[:2_000], targets[:2_000])
    repaired = fitted.apply(overconfident[2_000:])
    assert ece(sigmoid(overconfident[2_000:]), targets[2_000:]) > 0.1
    assert ece(repaired, targets[2_000:]) < 0.04


def test_few_labels_are_calibrated_by_platt_and_many_by_isotonic() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=ISOTONIC_LABELS + 1)
    targets = (rng.random(len(logits)) < sigmoid(logits)).astype(float)
    assert fit_calibration(logits[:-1], targets[:-1]).method is Method.PLATT
    assert fit_calibration(logits, targets).method is Method.ISOTONIC


def test_platt_never_reverses_a_ranking() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=500)
    targets = (rng.random(500) < sigmoid(-3 * logits)).astype(float)
    fitted = fit_platt(logits, targets)
    np.testing.assert_allclose(fitted.apply(np.array([-5.0, 5.0])), targets.mean(), atol=1e-3)
