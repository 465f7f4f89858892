"""The stack: how far the linear heads and the forest are each believed, learned from folds that saw neither.

p_small and p_large come from two logistic regressions on two logits each, the gain from a least-squares fit on three
estimates of it. No weight is negative: a head that is wrong by half is noise, not a sign to do the opposite. The gain
is fitted by itself because what the two models have in common, how hard a question is, drowns their difference.
"""

from dataclasses import dataclass, field

import numpy as np

from router_model.heads import MIN_PAIRS, HeadOutput, HeadOutputs, forest_logit_one, forest_logits
from router_model.labels import Labels
from router_model.logistic import Floats, fit_logistic, sigmoid, sigmoid_one

L2 = 1.0
"""Penalty on the weights of the probabilities: a handful of labels moves them, and a few hundred settle them."""

GAIN_PRIOR = 20.0
"""Rows that the gain's weights are drawn to equal shares by."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """right float64 [2, 3]: for small and large the weights of linear and forest logit, and the intercept.

    gain float64 [4]: weights of the difference of the linear probabilities, of that of the forest's, and of the linear
    gain head; intercept last.
    """

    right: Floats
    gain: Floats
    _right: list[list[float]] = field(init=False, repr=False)
    _gain: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the weights as plain floats, too, for one request."""
        object.__setattr__(self, "_right", self.right.tolist())
        object.__setattr__(self, "_gain", self.gain.tolist())

    def logits(self, raw: HeadOutputs) -> Floats:
        """Logits [n, 2] of a right answer, to be calibrated."""
        logits: Floats = raw.linear * self.right[:, 0] + forest_logits(raw.forest) * self.right[:, 1] + self.right[:, 2]
        return logits

    def gains(self, raw: HeadOutputs) -> Floats:
        """Expected score of large less that of small, [n]."""
        gains: Floats = _gain_inputs(raw) @ self.gain[:-1] + self.gain[-1]
        return gains

    def logits_one(self, raw: HeadOutput) -> tuple[float, float]:
        """`logits` of one request."""
        (linear_small, forest_small, small), (linear_large, forest_large, large) = self._right
        small += raw.linear[0] * linear_small + forest_logit_one(raw.forest[0]) * forest_small
        large += raw.linear[1] * linear_large + forest_logit_one(raw.forest[1]) * forest_large
        return small, large

    def gain_one(self, raw: HeadOutput) -> float:
        """`gains` of one request."""
        of_linear, of_forest, of_gain, intercept = self._gain
        linear = sigmoid_one(raw.linear[1]) - sigmoid_one(raw.linear[0])
        return linear * of_linear + (raw.forest[1] - raw.forest[0]) * of_forest + raw.gain * of_gain + intercept

    @classmethod
    def fit(cls, raw: HeadOutputs, labels: Labels) -> "Stack":
        """Fit to outputs for n rows that the heads were not trained on."""
        right = np.stack([cls._fit_right(raw, labels, side) for side in range(2)])
        return cls(right, cls._fit_gain(raw, labels))

    @staticmethod
    def _fit_right(raw: HeadOutputs, labels: Labels, side: int) -> Floats:
        known = np.isfinite(labels.scores[:, side])
        if not known.any():
            return np.array([1.0, 0.0, 0.0])
        inputs = np.stack([raw.linear[known, side], forest_logits(raw.forest[known, side])], axis=1)
        targets, counts = labels.scores[known, side], labels.weights[known]
        fitted = fit_logistic(inputs, targets, L2, counts=counts)
        if (fitted[:-1] < 0).any():
            kept = int(fitted[:-1].argmax())
            alone = fit_logistic(inputs[:, [kept]], targets, L2, counts=counts)
            fitted = np.zeros(3)
            fitted[[kept, 2]] = max(alone[0], 0.0), alone[1]
        return fitted

    @staticmethod
    def _fit_gain(raw: HeadOutputs, labels: Labels) -> Floats:
        pairs = labels.is_pair & (labels.weights > 0)
        n = int(pairs.sum())
        if n < MIN_PAIRS:
            return np.array([0.5, 0.5, 0.0, 0.0])
        inputs, gains, weights = _gain_inputs(raw)[pairs], labels.gains[pairs], labels.weights[pairs]
        weights = weights / max(float(weights.mean()), 1e-12)
        means = np.average(inputs, axis=0, weights=weights), float(np.average(gains, weights=weights))
        centred, rest = inputs - means[0], gains - means[1]
        gram = (centred * weights[:, None]).T
        # Where no estimate ever varies the prior alone decides, however little it weighs.
        scale = max(GAIN_PRIOR * float(np.diag(gram @ centred).mean()) / n, 1e-12)
        prior = np.full(3, 1 / 3)
        kept = np.ones(3, np.bool_)
        fitted = np.zeros(3)
        while kept.any():  # weights that fall below 0 leave, one at a time
            inner = (gram @ centred)[np.ix_(kept, kept)] + scale * np.eye(int(kept.sum()))
            fitted = np.zeros(3)
            fitted[kept] = np.linalg.solve(inner, (gram @ rest)[kept] + scale * prior[kept])
            if fitted.min() >= 0:
                break
            kept[fitted.argmin()] = False
            fitted = np.zeros(3)
        return np.append(fitted, means[1] - means[0] @ fitted)


def with_gain(p: Floats, gains: Floats) -> Floats:
    """Probabilities [n, 2] whose difference is the gain: both move by half of what is missing.

    Their mean, which says how hard the request is, stays, except where one would leave [0, 1].
    """
    missing = gains - (p[:, 1] - p[:, 0])
    moved = p + np.stack([-missing, missing], axis=1) / 2
    # Where one leaves the range the other takes what it could not, so that the difference stays where it can.
    over = np.maximum(moved.max(axis=1) - 1, 0) + np.minimum(moved.min(axis=1), 0)
    result: Floats = np.clip(moved - over[:, None], 0.0, 1.0)
    return result


def with_gain_one(small: float, large: float, gain: float) -> tuple[float, float]:
    """`with_gain` of one request."""
    half = (gain - (large - small)) / 2
    small, large = small - half, large + half
    over = max(max(small, large) - 1, 0.0) + min(small, large, 0.0)
    return min(max(small - over, 0.0), 1.0), min(max(large - over, 0.0), 1.0)


def _gain_inputs(raw: HeadOutputs) -> Floats:
    """Three estimates of the gain, [n, 3]."""
    linear = sigmoid(raw.linear)
    return np.stack([linear[:, 1] - linear[:, 0], raw.forest[:, 1] - raw.forest[:, 0], raw.gain], axis=1)
