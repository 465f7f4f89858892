"""Extremely randomised trees (Geurts, Ernst and Wehenkel, 2006) as flat arrays: grown by scikit-learn, read by numpy.

    nodes of all trees in one table, children side by side:

    node      0        1        2       3 …           x[feature] <= threshold: children, else children + 1
    feature   7        3        0       …             a leaf is its own child and has a threshold of infinity,
    child     1        3        2       …             so that rows of any depth can step together

Half of the trees split on the gain (large less small), where routing is decided; half on both scores at once, which
held up better on subjects that training never saw. Values of leaves are means of both scores, whatever they split on.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

MAX_DEPTH = 16
"""Deeper trees cost more per decision and gained nothing on MMLU outcomes."""

PRIOR_WEIGHT = 1.0
"""Rows that a leaf's mean is drawn to the mean of all by."""

_ROWS_AT_ONCE = 256

_NODE = np.dtype([("child", np.int64), ("feature", np.int32), ("threshold", np.float32)])
"""A node in one piece of 16 bytes. A step touches a node of every tree, far apart in memory: it waits for that once,
not for each of three tables. Two levels in a piece, or all comparisons at once, took longer.
"""


@dataclass(frozen=True, slots=True, eq=False)
class ForestSize:
    """How trees are grown. n_trees: in all. min_leaf: rows in a leaf. max_features: share of inputs tried per split."""

    n_trees: int = 240
    min_leaf: int = 8
    max_features: float = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """roots int32 [n_trees]. By node: feature int16, threshold float32, child int32, values float32 [n_nodes, 2].

    values: mean score of small and large among the training rows of the leaf; 0 at inner nodes, which are never read.
    depth: of the deepest leaf.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    child: NDArray[np.int32]
    values: NDArray[np.float32]
    depth: int
    _nodes: NDArray[np.void] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Put the nodes together as they are read."""
        nodes = np.empty(len(self.child), _NODE)
        nodes["child"], nodes["feature"], nodes["threshold"] = self.child, self.feature, self.threshold
        object.__setattr__(self, "_nodes", nodes)

    def predict(self, x: Floats) -> Floats:
        """Inputs [n, d] to the mean scores of small and large, float64 [n, 2]."""
        rows = np.ascontiguousarray(x, np.float32)
        parts = [
            self.values[self._leaves(rows[start : start + _ROWS_AT_ONCE])].mean(axis=1, dtype=np.float64)
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
        return np.concatenate([np.zeros((0, 2)), *parts])

    def predict_one(self, x: Floats) -> tuple[float, float]:
        """`predict` of one row [d]."""
        row, at = x.astype(np.float32), self.roots
        for _ in range(self.depth):
            node = self._nodes.take(at)
            at = node["child"] + (row.take(node["feature"]) > node["threshold"])
        small, large = self.values.take(at, axis=0).sum(axis=0, dtype=np.float64).tolist()
        return small / len(at), large / len(at)

    def _leaves(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """The leaf of every row in every tree, [n, n_trees]."""
        at: NDArray[np.int64] = np.broadcast_to(self.roots.astype(np.int64), (len(rows), len(self.roots)))
        offsets = (np.arange(len(rows)) * rows.shape[1])[:, None]
        flat = rows.ravel()
        for _ in range(self.depth):
            node = self._nodes.take(at)
            at = node["child"] + (flat.take(node["feature"] + offsets) > node["threshold"])
        return at

    @classmethod
    def fit(cls, x: Floats, scores: Floats, guesses: Floats, weights: Floats, size: ForestSize, seed: int) -> "Forest":
        """Grow on inputs [n, d].

        scores [n, 2] of small and large, NaN where unknown: there `guesses` [n, 2] choose the splits, and the leaves'
        values leave them out. weights [n] of the rows. Equal inputs give an equal forest.
        """
        from sklearn.ensemble import ExtraTreesRegressor  # heavy, and only training needs it

        counted = weights > 0
        x, scores, guesses, weights = x[counted], scores[counted], guesses[counted], weights[counted]
        rows = np.ascontiguousarray(x, np.float32)
        filled = np.where(np.isfinite(scores), scores, guesses)
        half = max(1, size.n_trees // 2)
        trees = []
        for targets, n_trees in ((filled[:, 1] - filled[:, 0], size.n_trees - half), (filled, half)):
            grown = ExtraTreesRegressor(
                max(n_trees, 1),
                min_samples_leaf=size.min_leaf,
                max_features=size.max_features,
                max_depth=MAX_DEPTH,
                random_state=seed,
            )
            grown.fit(rows, targets, sample_weight=weights)
            trees += [one.tree_ for one in grown.estimators_]
        return cls._flat(trees, rows, scores, weights)

    @classmethod
    def _flat(cls, trees: list[Any], rows: NDArray[np.float32], scores: Floats, weights: Floats) -> "Forest":
        known = np.isfinite(scores) * weights[:, None]
        given = np.nan_to_num(scores) * known
        prior = given.sum(axis=0) / np.maximum(known.sum(axis=0), 1e-12)
        features, thresholds, children, values = [], [], [], []
        roots, start = [], 0
        for tree in trees:
            order = _siblings_together(tree.children_left, tree.children_right)
            place = np.empty(tree.node_count, np.int32)
            place[order] = np.arange(tree.node_count, dtype=np.int32)
            left = tree.children_left[order]
            is_leaf = left < 0
            roots.append(start)
            features.append(np.where(is_leaf, 0, tree.feature[order]))
            thresholds.append(np.where(is_leaf, np.inf, tree.threshold[order]))
            children.append(start + np.where(is_leaf, np.arange(tree.node_count), place[left]))
            leaves = place[tree.apply(rows)]
            sums = [
                [np.bincount(leaves, column, tree.node_count) for column in part.T] for part in (given, known)
            ]  # [2 parts][2 models][nodes]
            means = [
                (total + PRIOR_WEIGHT * mean) / (count + PRIOR_WEIGHT)
                for total, count, mean in zip(*sums, prior, strict=True)
            ]
            values.append(np.where(is_leaf[:, None], np.stack(means, axis=1), 0.0))
            start += tree.node_count
        return cls(
            np.array(roots, np.int32),
            np.concatenate(features).astype(np.int16),
            np.concatenate(thresholds).astype(np.float32),
            np.concatenate(children).astype(np.int32),
            np.concatenate(values).astype(np.float32),
            max(tree.max_depth for tree in trees),
        )


def _siblings_together(left: NDArray[np.intp], right: NDArray[np.intp]) -> list[int]:
    """Node numbers in an order in which a node's right child follows its left one, the root being first."""
    order = [0]
    for node in order:  # grows as it goes: breadth first
        if left[node] >= 0:
            order += [int(left[node]), int(right[node])]
    return order
