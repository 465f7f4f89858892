"""The heads on an encoded request: who answers right, what the large model gains, output tokens, and how familiar.

Each question is asked twice, of a linear head and of a forest: `stack.py` weighs the two. Linear heads lead where
there are few labels, forests where there are many.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router_model.calibration import logit, logit_one
from router_model.forest import Forest, ForestSize
from router_model.labels import Labels
from router_model.logistic import Floats, fit_logistic, sigmoid, sigmoid_one, with_ones

NEAR = 4.0
"""The linear heads look no further than this many deviations: beyond, they would extrapolate."""

LENGTH = slice(0, 1)
"""The column of every encoding that holds the logarithm of the text's length: first of the cheap features."""

OOD_FLOOR = 0.1
"""Variance, as a share of the mean over all directions, that is added to each direction before distances are measured.

Directions that training hardly moved in are the ones that show another kind of question. With the 32 leading principal
components alone none of 802 word problems was unlike MMLU; with all directions all of them are, and 60 % of eight other
tasks. Of subjects that training had not seen this floor calls 2.5 % unlike it, a floor of 0.05 calls 11 % so.
"""

MIN_TOKEN_LABELS = 50
"""Fewer rows with token counts train no token head."""

MIN_PAIRS = 50
"""Fewer rows with both scores train no gain head: its output is then p_large - p_small of the others."""


MAX_LOG_TOKENS = 14.0
"""2^20 tokens are more than any window: a cap for exp() far from the data."""


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """HeadOutputs of one request as plain floats; pairs are of small and large."""

    linear: tuple[float, float]
    forest: tuple[float, float]
    gain: float
    far: tuple[float, float]
    distance: float
    tokens: tuple[float, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutputs:
    """Raw outputs for n requests.

    linear: logits [n, 2] that small and large answer right. forest: probabilities [n, 2] of the same. gain [n]: what
    the linear head for large less small says. far [n, 2]: probabilities by length alone. distance [n]. tokens: expected
    [n, 2], or None.
    """

    linear: Floats
    forest: Floats
    gain: Floats
    far: Floats
    distance: Floats
    tokens: Floats | None

    @classmethod
    def joined(cls, parts: Sequence["HeadOutputs"]) -> "HeadOutputs":
        """The outputs of several parts, one after the other; no tokens unless all parts have them."""
        tokens = [part.tokens for part in parts if part.tokens is not None]
        return cls(
            np.concatenate([part.linear for part in parts]),
            np.concatenate([part.forest for part in parts]),
            np.concatenate([part.gain for part in parts]),
            np.concatenate([part.far for part in parts]),
            np.concatenate([part.distance for part in parts]),
            np.concatenate(tokens) if len(tokens) == len(parts) else None,
        )

    def take(self, rows: NDArray[np.intp]) -> "HeadOutputs":
        """Those of some rows."""
        return HeadOutputs(
            self.linear[rows],
            self.forest[rows],
            self.gain[rows],
            self.far[rows],
            self.distance[rows],
            None if self.tokens is None else self.tokens[rows],
        )

    @property
    def small_tokens(self) -> Floats | None:
        """Expected output tokens of the small model, [n]."""
        return None if self.tokens is None else self.tokens[:, 0]

    @property
    def large_tokens(self) -> Floats | None:
        """Expected output tokens of the large model, [n]."""
        return None if self.tokens is None else self.tokens[:, 1]


@dataclass(frozen=True, slots=True, eq=False)
class LinearHeads:
    """right float64 [2, d + 1]: small, large; gain [d + 1]; intercepts last."""

    right: Floats
    gain: Floats

    def apply(self, encoded: Floats) -> tuple[Floats, Floats]:
        """encoded [n, d] to logits [n, 2] and gains [n]."""
        design = with_ones(np.clip(encoded, -NEAR, NEAR))
        return design @ self.right.T, design @ self.gain

    @classmethod
    def fit(cls, encoded: Floats, labels: Labels, l2: float, start: Floats | None = None) -> "LinearHeads":
        """Fit to the rows whose labels are known. l2: penalty; start: `right` of a fit to similar data."""
        near = np.clip(encoded, -NEAR, NEAR)
        right = []
        for side in range(2):
            known = np.isfinite(labels.scores[:, side])
            if not known.any():
                right.append(np.zeros(encoded.shape[1] + 1))
                continue
            right.append(
                fit_logistic(
                    near[known],
                    labels.scores[known, side],
                    l2,
                    None if start is None else start[side],
                    labels.weights[known],
                )
            )
        weights = np.stack(right)
        return cls(weights, cls._fit_gain(near, labels, l2, weights))

    @staticmethod
    def _fit_gain(near: Floats, labels: Labels, l2: float, right: Floats) -> Floats:
        pairs = np.flatnonzero(labels.is_pair)
        if len(pairs) < MIN_PAIRS:
            # Without pairs: the first-order difference of the two logistic heads at their mean.
            slopes = sigmoid(right[:, -1]) * (1 - sigmoid(right[:, -1]))
            difference: Floats = slopes[1] * right[1] - slopes[0] * right[0]
            return np.append(difference[:-1], labels.mean(1) - labels.mean(0))
        design, weights = with_ones(near[pairs]), labels.weights[pairs]
        # A gain has about the variance of a right answer, p (1 - p) = 1 / 5: so its penalty is that of the others.
        penalty = np.diag(np.append(np.full(near.shape[1], 5 * l2), 1e-3))
        gram = (design * weights[:, None]).T
        return np.asarray(np.linalg.solve(gram @ design + penalty, gram @ labels.gains[pairs]), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Heads on an encoding of d numbers.

    far [2, 2]: logistic heads for small and large on length alone. centre [d] and whitening [d, d] of the Mahalanobis
    distance. tokens [2, d + 2] or None: ridge weights on log(1 + tokens), intercept, and the factor that undoes the
    bias of the logarithm (Duan's smearing estimate, 1983).
    """

    linear: LinearHeads
    forest: Forest
    far: Floats
    centre: Floats
    whitening: Floats
    tokens: Floats | None = None
    _near: Floats = field(init=False, repr=False)
    _intercepts: list[float] = field(init=False, repr=False)
    _far: list[list[float]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Put together what `outputs_one` reads: all heads that are linear in what is near, as one product."""
        rows = [*self.linear.right, self.linear.gain]
        if self.tokens is not None:
            rows += list(self.tokens[:, :-1])
        weights = np.stack(rows)  # [heads, d + 1]
        object.__setattr__(self, "_near", np.ascontiguousarray(weights[:, :-1]))
        object.__setattr__(self, "_intercepts", weights[:, -1].tolist())
        object.__setattr__(self, "_far", self.far.tolist())

    def outputs(self, encoded: Floats) -> HeadOutputs:
        """encoded float64 [n, d] to HeadOutputs. The distance is per component: about 1 for what training saw."""
        logits, gain = self.linear.apply(encoded)
        whitened = (encoded - self.centre) @ self.whitening
        distance: Floats = np.sqrt(np.square(whitened).mean(axis=1))
        far = sigmoid(with_ones(np.clip(encoded[:, LENGTH], -NEAR, NEAR)) @ self.far.T)
        return HeadOutputs(logits, self.forest.predict(encoded), gain, far, distance, self._expected_tokens(encoded))

    def outputs_one(self, encoded: Floats) -> HeadOutput:
        """`outputs` of one request, encoded float64 [d]."""
        near = np.minimum(np.maximum(encoded, -NEAR), NEAR)
        products = (self._near @ near).tolist()
        small, large, gain, *logs = map(float.__add__, products, self._intercepts)
        whitened = (encoded - self.centre) @ self.whitening
        length = float(near[LENGTH][0])
        (slope_small, far_small), (slope_large, far_large) = self._far
        tokens = None
        if self.tokens is not None:
            smearing_small, smearing_large = self.tokens[:, -1].tolist()
            tokens = _tokens_one(logs[0], smearing_small), _tokens_one(logs[1], smearing_large)
        return HeadOutput(
            linear=(small, large),
            forest=self.forest.predict_one(encoded),
            gain=gain,
            far=(sigmoid_one(slope_small * length + far_small), sigmoid_one(slope_large * length + far_large)),
            distance=math.sqrt(float(whitened @ whitened) / len(whitened)),
            tokens=tokens,
        )

    def _expected_tokens(self, encoded: Floats) -> Floats | None:
        if self.tokens is None:
            return None
        logs = np.clip(with_ones(np.clip(encoded, -NEAR, NEAR)) @ self.tokens[:, :-1].T, 0.0, MAX_LOG_TOKENS)
        expected: Floats = np.maximum(np.exp(logs) * self.tokens[:, -1] - 1, 0.0)
        return expected


def fit_heads(encoded: Floats, labels: Labels, linear: LinearHeads, size: ForestSize, l2: float, seed: int) -> Heads:
    """Fit the rest of the heads to encoded float64 [n, d], beside linear heads that were fitted to the same rows."""
    guesses = sigmoid(linear.apply(encoded)[0])
    forest = Forest.fit(encoded, labels.scores, guesses, labels.weights, size, seed)
    near = np.clip(encoded, -NEAR, NEAR)
    centre, whitening = _fit_whitening(encoded)
    return Heads(linear, forest, _fit_far(near, labels), centre, whitening, _fit_tokens(near, labels.tokens, l2))


def _fit_far(near: Floats, labels: Labels) -> Floats:
    """Weights [2, 2] of the heads on length alone."""
    weights = np.zeros((2, 2))
    for side in range(2):
        known = np.isfinite(labels.scores[:, side])
        if known.any():
            targets, counts = labels.scores[known, side], labels.weights[known]
            weights[side] = fit_logistic(near[known][:, LENGTH], targets, 1.0, counts=counts)
    return weights


def _fit_whitening(encoded: Floats) -> tuple[Floats, Floats]:
    """Centre [d] and whitening [d, d] of a covariance with OOD_FLOOR added."""
    centre = encoded.mean(axis=0)
    centred = encoded - centre
    variances, directions = np.linalg.eigh(centred.T @ centred / max(len(encoded) - 1, 1))
    floor = max(OOD_FLOOR * float(variances.mean()), 1e-9)
    return centre, directions / np.sqrt(np.maximum(variances, 0.0) + floor)


def _fit_tokens(near: Floats, tokens: Floats, l2: float) -> Floats | None:
    """Ridge regressions, each on the rows whose count is known; None where either has too few."""
    weights = []
    for side in range(2):
        known = np.isfinite(tokens[:, side])
        if known.sum() < MIN_TOKEN_LABELS:
            return None
        design, logs = with_ones(near[known]), np.log1p(tokens[known, side])
        penalty = np.diag(np.append(np.full(near.shape[1], l2), 0.0))
        fitted = np.linalg.solve(design.T @ design + penalty, design.T @ logs)
        weights.append(np.append(fitted, np.exp(logs - design @ fitted).mean()))
    return np.stack(weights)


def _tokens_one(log: float, smearing: float) -> float:
    return max(math.exp(min(max(log, 0.0), MAX_LOG_TOKENS)) * smearing - 1, 0.0)


def forest_logits(probabilities: Floats) -> Floats:
    """A forest's mean scores as logits, which never are infinite."""
    return logit(np.clip(probabilities, 0.01, 0.99))


def forest_logit_one(probability: float) -> float:
    """`forest_logits` of one mean score."""
    return logit_one(min(max(probability, 0.01), 0.99))
