"""The front model: between which bounds the routing score will lie, told before any prefill.

It reads the cheap features alone, so it costs next to nothing. A request whose lower bound already reaches the
threshold can go to the large model at once, and the small model's prefill is saved.

The score is predicted by ridge regression, how far off that may be by another one on the logarithm of the error; the
width comes from held-out errors in units of that (normalised conformal prediction, Papadopoulos et al., 2008).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.features import Features
from router_model.logistic import Floats, with_ones

OUTSIDE = 0.05
"""Share of scores that may lie outside their bounds: half below, half above."""

NEAR = 4.0
"""Deviations at which the inputs are held."""

L2 = 30.0

MIN_ROWS = 100
"""Fewer training rows give no front model."""

SCORES = (-1.0, 1.0)
"""Where scores lie: the bounds of a request that the model knows nothing of."""

OOD_QUANTILE = 0.99
"""Requests further from the training data than this quantile of it get the bounds of SCORES."""


@dataclass(frozen=True, slots=True, eq=False)
class FrontModel:
    """mean and scale float64 [d] standardise the cheap features. weights float64 [2, d + 1]: score, log of its error.

    below and above: errors, in units of the predicted one, that held-out scores rarely passed. radius: root mean square
    of the standardised features at which a request counts as unfamiliar.
    """

    mean: Floats
    scale: Floats
    weights: Floats
    below: float
    above: float
    radius: float

    def bounds(self, features: Features) -> tuple[float, float]:
        """Lower and upper bound of the score of one request; those of SCORES where it is unlike the training data."""
        standard = (features.cheap - self.mean) / self.scale
        if math.sqrt(float(standard @ standard) / len(standard)) > self.radius:
            return SCORES
        near = np.minimum(np.maximum(standard, -NEAR), NEAR)
        score, log_error = (self.weights[:, :-1] @ near + self.weights[:, -1]).tolist()
        error = math.exp(min(max(log_error, -7.0), 0.0))
        least, most = SCORES
        low, high = score - self.below * error, score + self.above * error
        return min(max(low, least), most), min(max(high, least), most)

    def bounds_all(self, features: Sequence[Features]) -> tuple[Floats, Floats]:
        """Lower and upper bounds of n requests, [n] each."""
        design, distance = self._design(features)
        score, log_error = design @ self.weights[0], design @ self.weights[1]
        error = np.exp(np.clip(log_error, -7.0, 0.0))
        known = distance <= self.radius
        low = np.where(known, np.clip(score - self.below * error, *SCORES), SCORES[0])
        high = np.where(known, np.clip(score + self.above * error, *SCORES), SCORES[1])
        return low, high

    @classmethod
    def fit(cls, features: Sequence[Features], scores: Floats, folds: NDArray[np.intp]) -> "FrontModel | None":
        """Fit to scores [n] by a main model that did not see the row; folds [n] part what is fitted from what is
        measured. None for fewer than MIN_ROWS rows.
        """
        if len(scores) < MIN_ROWS:
            return None
        cheap = np.stack([one.cheap for one in features]).astype(np.float64)
        deviation = cheap.std(axis=0)
        start = cls(cheap.mean(axis=0), np.where(deviation > 1e-4, deviation, 1.0), np.zeros((2, 0)), 0.0, 0.0, np.inf)
        design, distance = start._design(features)
        weights = _fit(design, scores, folds)
        ratios = np.zeros(len(scores))
        for fold in np.unique(folds):
            rest, held = folds != fold, folds == fold
            inner = _fit(design[rest], scores[rest], folds[rest])
            error = np.exp(np.clip(design[held] @ inner[1], -7.0, 0.0))
            ratios[held] = (scores[held] - design[held] @ inner[0]) / error
        below, above = (float(np.quantile(sign * ratios, 1 - OUTSIDE / 2)) for sign in (-1, 1))
        radius = float(np.quantile(distance, OOD_QUANTILE))
        return cls(start.mean, start.scale, weights, max(below, 0.0), max(above, 0.0), radius)

    def _design(self, features: Sequence[Features]) -> tuple[Floats, Floats]:
        """Inputs [n, d + 1] and distances [n]."""
        cheap = np.stack([one.cheap for one in features])
        standard = (cheap - self.mean) / self.scale
        distance: Floats = np.sqrt(np.square(standard).mean(axis=1))
        return with_ones(np.clip(standard, -NEAR, NEAR)), distance


def _fit(design: Floats, scores: Floats, folds: NDArray[np.intp]) -> Floats:
    """Weights [2, d + 1]; the errors that the second learns are of folds that the first did not see."""
    errors = np.zeros(len(scores))
    for fold in np.unique(folds):
        rest, held = folds != fold, folds == fold
        errors[held] = np.abs(scores[held] - design[held] @ _ridge(design[rest], scores[rest]))
    return np.stack([_ridge(design, scores), _ridge(design, np.log(errors + 1e-3))])


def _ridge(design: Floats, targets: Floats) -> Floats:
    penalty = np.append(np.full(design.shape[1] - 1, L2), 1e-6)
    return np.asarray(np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ targets), np.float64)
