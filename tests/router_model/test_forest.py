import numpy as np
import pytest
from numpy.typing import NDArray

from router_model.forest import MAX_DEPTH, Forest, ForestSize

SMALL = ForestSize(n_trees=20, min_leaf=5, max_features=1.0)


def world(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs [n, 6] and scores [n, 2]: small is right where the first input is negative, large by a coin."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    return x, np.stack([x[:, 0] < 0, rng.random(n) < 0.8], axis=1).astype(np.float64)


def walk(forest: Forest, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """The definition: one tree after the other, from its root to a node that is its own child."""
    values = []
    for root in forest.roots:
        node = int(root)
        while forest.child[node] != node:
            node = int(forest.child[node]) + int(row[forest.feature[node]] > forest.threshold[node])
        values.append(forest.values[node])
    mean: NDArray[np.float64] = np.mean(values, axis=0, dtype=np.float64)
    return mean


def test_predictions_are_those_of_walking_each_tree() -> None:
    x, scores = world(400)
    forest = Forest.fit(x, scores, scores, np.ones(400), SMALL, seed=0)
    assert len(forest.roots) == SMALL.n_trees
    fresh = world(30, seed=1)[0]
    np.testing.assert_allclose(
        forest.predict(fresh), [walk(forest, row) for row in fresh.astype(np.float32)], atol=1e-6
    )
    assert forest.depth <= MAX_DEPTH


def test_many_rows_are_predicted_as_one_is() -> None:
    x, scores = world(700)
    forest = Forest.fit(x, scores, scores, np.ones(700), SMALL, seed=0)
    np.testing.assert_array_equal(forest.predict(x)[[3, 600]], forest.predict(x[[3, 600]]))
    assert forest.predict(np.zeros((0, 6))).shape == (0, 2)
    assert [forest.predict_one(row) for row in x] == list(map(tuple, forest.predict(x)))


def test_a_forest_finds_what_the_scores_depend_on() -> None:
    x, scores = world(1_000)
    p = Forest.fit(x, scores, scores, np.ones(1_000), SMALL, seed=0).predict(world(500, seed=2)[0])
    truth = world(500, seed=2)[1][:, 0]
    assert np.mean((p[:, 0] > 0.5) == truth) > 0.9
    assert p[:, 1].mean() == pytest.approx(0.8, abs=0.05)
    assert ((p >= 0) & (p <= 1)).all()


def test_unknown_scores_shape_no_leaf() -> None:
    x, scores = world(600)
    hidden = scores.copy()
    hidden[300:, 1] = np.nan
    guesses = np.full_like(scores, 0.0)  # far from the truth: it would show
    p = Forest.fit(x, hidden, guesses, np.ones(600), SMALL, seed=0).predict(x)
    assert p[:, 1].mean() == pytest.approx(0.8, abs=0.08)
    assert np.isfinite(p).all()


def test_rows_without_weight_count_for_nothing() -> None:
    x, scores = world(600)
    lying = scores.copy()
    lying[300:] = 1 - lying[300:]
    weights = np.repeat([1.0, 0.0], 300)
    p = Forest.fit(x, lying, lying, weights, SMALL, seed=0).predict(x)
    assert np.mean((p[:, 0] > 0.5) == scores[:, 0]) > 0.9


def test_equal_inputs_give_an_equal_forest() -> None:
    x, scores = world(200)
    one, two = (Forest.fit(x, scores, scores, np.ones(200), SMALL, seed=3) for _ in range(2))
    for name in ("roots", "feature", "threshold", "child", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
