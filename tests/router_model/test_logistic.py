import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from router_model.logistic import fit_logistic, log_loss, sigmoid, sigmoid_one


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_weights_are_those_of_scikit_learn(l2: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6))
    y = (rng.random(400) < sigmoid(x[:, 0] - 2 * x[:, 1] + 0.5)).astype(float)
    ours = fit_logistic(x, y, l2)
    theirs = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(ours[:-1], theirs.coef_[0], atol=1e-4)
    assert ours[-1] == pytest.approx(theirs.intercept_[0], abs=1e-3)


def test_a_soft_target_counts_as_that_many_of_each_kind() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    share = rng.choice([0.0, 0.25, 0.5, 1.0], 50)
    copies = np.repeat(x, 4, axis=0)
    hard = (np.tile([0.125, 0.375, 0.625, 0.875], 50) < np.repeat(share, 4)).astype(float)
    np.testing.assert_allclose(fit_logistic(x, share, 1.0), fit_logistic(copies, hard, 4.0), atol=1e-2)


def test_a_row_that_counts_three_times_is_as_good_as_three_rows() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 3)), rng.random(60)
    counts = rng.integers(0, 4, 60)
    copies = np.repeat(np.arange(60), counts)
    weighted = fit_logistic(x, y, 2.0, counts=counts.astype(float))
    np.testing.assert_allclose(weighted, fit_logistic(x[copies], y[copies], 2.0), atol=1e-5)


def test_separable_and_constant_targets_have_finite_weights() -> None:
    x = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    for y in (np.array([0.0, 0, 1, 1]), np.ones(4), np.zeros(4)):
        weights = fit_logistic(x, y, 1e-3)
        assert np.isfinite(weights).all()
        assert log_loss(x @ weights[:-1] + weights[-1], y) < 0.1


def test_a_warm_start_does_not_change_the_end() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 4)), rng.random(200)
    cold = fit_logistic(x, y, 2.0)
    np.testing.assert_allclose(fit_logistic(x, y, 2.0, rng.normal(size=5) * 3), cold, atol=1e-3)


def test_sigmoid_and_loss_stand_extreme_logits() -> None:
    logits = np.array([-1e4, 0.0, 1e4])
    np.testing.assert_allclose(sigmoid(logits), [0, 0.5, 1])
    assert log_loss(np.array([1e4, -1e4]), np.array([1.0, 0.0])) == 0
    assert log_loss(np.array([1e4, 3.0]), np.array([1.0, np.nan])) == 0


@given(st.floats(-1e300, 1e300))
def test_the_logistic_function_of_one_number_is_that_of_many(x: float) -> None:
    assert sigmoid_one(x) == pytest.approx(float(sigmoid(np.array([x]))[0]), rel=1e-12)
