from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from router_model.calibration import (
    IDENTITY,
    ISOTONIC_LABELS,
    MIN_ROUTE_LABELS,
    SHRINKAGE,
    CalibrationMap,
    Method,
    RouteMaps,
    correction,
    fit_calibration,
    fit_isotonic,
    fit_platt,
    fit_route_maps,
    logit,
    logit_one,
    pool_adjacent_violators,
)
from router_model.logistic import Floats, log_loss, sigmoid
from router_model.metrics import ece, ece_debiased

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


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_a_weight_counts_a_row_that_often(fit: Callable[..., CalibrationMap]) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=300)
    targets = (rng.random(300) < sigmoid(logits)).astype(float)
    counts = rng.integers(1, 4, 300)
    repeated = fit(np.repeat(logits, counts), np.repeat(targets, counts)).apply(logits)
    # Platt's prior is one observation, whatever the weights sum to.
    np.testing.assert_allclose(fit(logits, targets, counts.astype(float)).apply(logits), repeated, atol=0.01)


def test_rows_without_a_label_and_rows_without_weight_are_left_out() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=400)
    targets = (rng.random(400) < sigmoid(logits)).astype(float)
    targets[:100], weights = np.nan, np.ones(400)
    weights[100:150] = 0
    plain = fit_calibration(logits[150:], targets[150:])
    np.testing.assert_allclose(fit_calibration(logits, targets, weights).y, plain.y, atol=1e-6)
    with pytest.raises(ValueError, match="no row has a label"):
        fit_calibration(logits, np.full(400, np.nan))


def biased_routes(n: int, sizes: dict[str, int], seed: int) -> tuple[Floats, Floats, list[str]]:
    """Logits that are right on the whole, but off by -1 on `hard` and +1 on `easy`."""
    rng = np.random.default_rng(seed)
    routes = [route for route, size in sizes.items() for _ in range(size)]
    routes += [""] * (n - len(routes))
    logits = rng.normal(size=n)
    bias = np.array([{"hard": -1.0, "easy": 1.0}.get(route, 0.0) for route in routes])
    return logits, (rng.random(n) < sigmoid(logits + bias)).astype(float), routes


def test_a_route_with_labels_gets_its_own_map_and_one_without_everyones() -> None:
    sizes = {"hard": 600, "easy": 600, "rare": MIN_ROUTE_LABELS - 1}
    fitted = fit_route_maps(*biased_routes(4_000, sizes, 0))
    assert set(fitted.by_route) == {"hard", "easy"}
    logits, targets, routes = biased_routes(4_000, sizes, 1)
    p, plain = fitted.apply(logits, routes), fitted.apply(logits)
    assert log_loss(logit(p), targets) < log_loss(logit(plain), targets) - 0.01
    for route in ("hard", "easy"):
        rows = np.array(routes) == route
        assert ece_debiased(p[rows], targets[rows]) < 0.06 < ece_debiased(plain[rows], targets[rows])
    others = np.array([route in ("", "rare", "unheard") for route in routes])
    np.testing.assert_array_equal(p[others], plain[others])
    with pytest.raises(ValueError, match="give one for each row"):
        fitted.apply(logits, routes[:-1])


def test_few_labels_of_a_route_move_its_map_little_and_many_all_the_way() -> None:
    logits, targets, routes = biased_routes(6_000, {"hard": 3_000}, 2)
    moved = []
    for n in (MIN_ROUTE_LABELS, int(SHRINKAGE), 3_000):
        rows = np.r_[:n, 3_000:6_000]
        fitted = fit_route_maps(logits[rows], targets[rows], [routes[i] for i in rows], everyone=IDENTITY)
        own, weight = fitted.by_route["hard"]
        assert weight == pytest.approx(n / (n + SHRINKAGE))
        at = np.zeros(1)
        blended = logit(fitted.apply(at, ["hard"])) - logit(fitted.apply(at))
        assert blended == pytest.approx(weight * (logit(own.apply(at)) - logit(fitted.apply(at))))
        moved.append(float(blended[0]))
    assert moved[0] > moved[-1]
    assert moved[-1] == pytest.approx(-1, abs=0.3)


def test_a_correction_by_few_labels_changes_little_and_by_many_repairs() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(size=5_000)
    targets = (rng.random(5_000) < sigmoid(logits - 1)).astype(float)
    asked = np.linspace(-2, 2, 9)
    np.testing.assert_array_equal(correction(logits, np.full(5_000, np.nan)).apply(asked), IDENTITY.apply(asked))
    changes = []
    for n in (5, 50, 500, 5_000):
        p = correction(logits[:n], targets[:n]).apply(asked)
        changes.append(float(np.abs(p - sigmoid(asked)).mean()))
        assert (np.diff(p) >= 0).all()
    assert changes[0] < 0.05 < changes[2]
    np.testing.assert_allclose(correction(logits, targets).apply(asked), sigmoid(asked - 1), atol=0.08)


def test_a_correction_of_honest_probabilities_leaves_them() -> None:
    rng = np.random.default_rng(6)
    logits = rng.normal(size=800)
    targets = (rng.random(800) < sigmoid(logits)).astype(float)
    asked = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(correction(logits, targets).apply(asked), sigmoid(asked), atol=0.06)


@given(POINTS, st.lists(st.floats(-10, 10), max_size=10), st.sampled_from(["", "code", "unknown"]))
def test_one_logit_is_mapped_as_it_is_among_many(
    points: list[tuple[int, float]], asked: list[float], route: str
) -> None:
    logits, targets = np.array(points, np.float64).T
    everyone, own = fit_isotonic(logits, targets), fit_platt(logits, targets)
    for maps in (RouteMaps(everyone, {"code": (own, 0.4)}), RouteMaps(own, {"code": (everyone, 1.0)})):
        at = np.array([*logits, *everyone.x, *asked])
        ones = [maps.apply_one(value, route) for value in at.tolist()]
        np.testing.assert_allclose(ones, maps.apply(at, [route] * len(at)), rtol=1e-12)


@given(st.floats(0, 1))
def test_one_probability_has_the_logit_that_it_has_among_many(p: float) -> None:
    assert logit_one(p) == pytest.approx(float(logit(np.array([p]))[0]), rel=1e-12, abs=1e-12)
