import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.heads import HeadOutputs
from router_model.labels import Labels
from router_model.logistic import sigmoid
from router_model.stack import Stack, with_gain, with_gain_one

N = 4_000


def outputs(signal: np.ndarray, *, forest_noise: float, linear_noise: float) -> HeadOutputs:
    """Heads that see true logits [n, 2] through noise."""
    rng = np.random.default_rng(1)
    linear = signal + linear_noise * rng.normal(size=signal.shape)
    forest = sigmoid(signal + forest_noise * rng.normal(size=signal.shape))
    p = sigmoid(linear)
    return HeadOutputs(linear, forest, p[:, 1] - p[:, 0], p, np.ones(len(signal)), None)


def labels_for(signal: np.ndarray, seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    scores = (rng.random(signal.shape) < sigmoid(signal)).astype(np.float64)
    return Labels(scores, np.full(signal.shape, np.nan), np.ones(len(signal)))


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 2)) * 1.5 + [0.0, 1.0]


def test_the_better_head_is_believed_more(signal: np.ndarray) -> None:
    labels = labels_for(signal)
    good_forest = Stack.fit(outputs(signal, forest_noise=0.1, linear_noise=3), labels)
    good_linear = Stack.fit(outputs(signal, forest_noise=3, linear_noise=0.1), labels)
    assert (good_forest.right[:, 1] > 5 * good_forest.right[:, 0]).all()
    assert (good_linear.right[:, 0] > 5 * good_linear.right[:, 1]).all()
    assert good_forest.gain[1] > good_forest.gain[0] + good_forest.gain[2]
    assert good_linear.gain[1] < good_linear.gain[0] + good_linear.gain[2]


def test_probabilities_and_gains_are_right_on_average(signal: np.ndarray) -> None:
    labels = labels_for(signal)
    raw = outputs(signal, forest_noise=1, linear_noise=1)
    stack = Stack.fit(raw, labels)
    np.testing.assert_allclose(sigmoid(stack.logits(raw)).mean(axis=0), labels.scores.mean(axis=0), atol=0.01)
    gains = stack.gains(raw)
    for part in np.array_split(np.argsort(gains), 5):
        assert gains[part].mean() == pytest.approx(labels.gains[part].mean(), abs=0.06)


def test_a_head_that_is_wrong_is_left_out_and_not_turned_round(signal: np.ndarray) -> None:
    labels = labels_for(signal)
    raw = outputs(signal, forest_noise=0.5, linear_noise=0.5)
    turned = HeadOutputs(-raw.linear, raw.forest, -raw.gain, raw.far, raw.distance, None)
    stack = Stack.fit(turned, labels)
    assert (stack.right[:, :2] >= 0).all()
    assert (stack.gain[:3] >= 0).all()
    assert stack.right[0, 0] == stack.gain[0] == stack.gain[2] == 0


def test_labels_on_one_side_only_still_calibrate_each_side(signal: np.ndarray) -> None:
    labels = labels_for(signal)
    scores = labels.scores.copy()
    scores[::2, 0], scores[1::2, 1] = np.nan, np.nan
    raw = outputs(signal, forest_noise=1, linear_noise=1)
    stack = Stack.fit(raw, Labels(scores, labels.tokens, labels.weights))
    np.testing.assert_allclose(sigmoid(stack.logits(raw)).mean(axis=0), labels.scores.mean(axis=0), atol=0.03)
    assert np.corrcoef(stack.gains(raw), labels.gains)[0, 1] > 0.3


def test_a_row_of_weight_two_counts_as_two_rows(signal: np.ndarray) -> None:
    labels, raw = labels_for(signal), outputs(signal, forest_noise=1, linear_noise=1)
    twice = np.concatenate([np.arange(N), np.arange(100)])
    weights = np.ones(N)
    weights[:100] = 2
    weighted = Stack.fit(raw, Labels(labels.scores, labels.tokens, weights))
    repeated = Stack.fit(raw.take(twice), labels.take(twice))
    np.testing.assert_allclose(weighted.right, repeated.right, atol=1e-3)
    np.testing.assert_allclose(weighted.gain, repeated.gain, atol=1e-2)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1))
def test_probabilities_differ_by_the_gain_and_stay_probabilities(small: float, large: float, gain: float) -> None:
    (moved,) = with_gain(np.array([[small, large]]), np.array([gain]))
    assert ((moved >= 0) & (moved <= 1)).all()
    assert moved[1] - moved[0] == pytest.approx(gain, abs=1e-9)
    if moved.min() > 0 and moved.max() < 1:
        assert moved.mean() == pytest.approx((small + large) / 2, abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-3, 3))
def test_one_request_gets_its_gain_as_it_does_among_many(small: float, large: float, gain: float) -> None:
    many = with_gain(np.array([[small, large]]), np.array([gain]))[0]
    np.testing.assert_allclose(with_gain_one(small, large, gain), many, atol=1e-12)
