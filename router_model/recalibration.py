"""Recalibration: new labels correct a trained router's probabilities, without training it again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router_model.calibration import RouteMaps, correction, fit_route_maps, logit, logit_one
from router_model.logistic import Floats
from router_model.model import Prediction, Predictions

OOD_QUANTILE = 0.99
"""The quantile of distances that counts as ood 1, as in training."""


@dataclass(frozen=True, slots=True, eq=False)
class Recalibration:
    """What is put behind a router's predictions.

    small, large: maps from the logit of the probability that the router gave. radius: distances are divided by it,
    since what new labels cover is no longer unfamiliar.
    """

    small: RouteMaps
    large: RouteMaps
    radius: float

    def apply(self, seen: Predictions, routes: Sequence[str] = ()) -> Predictions:
        """Corrected predictions of n requests. routes [n] or empty: their kinds of traffic."""
        p_small = self.small.apply(logit(seen.p_small), routes)
        p_large = self.large.apply(logit(seen.p_large), routes)
        ood = np.asarray(seen.ood / self.radius)
        return Predictions(p_small, p_large, ood, p_large - p_small, seen.small_tokens, seen.large_tokens)

    def apply_one(self, seen: Prediction, route: str = "") -> Prediction:
        """`apply` to one request; route "" is none."""
        return replace(
            seen,
            p_small=self.small.apply_one(logit_one(seen.p_small), route),
            p_large=self.large.apply_one(logit_one(seen.p_large), route),
            ood=seen.ood / self.radius,
        )


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPredictions:
    """A router's predictions for n rows that it was not trained on, with what came of them.

    scores float64 [n, 2]: small, large, NaN where not graded. weights [n]. routes [n].
    """

    seen: Predictions
    scores: Floats
    weights: Floats
    routes: Sequence[str]

    def fit(self, rows: NDArray[np.intp] | None = None) -> Recalibration:
        """A recalibration fitted to some rows, or to all. A radius is only ever widened: what was familiar stays so."""
        at = np.arange(len(self.scores)) if rows is None else rows
        routes, weights = [self.routes[i] for i in at], self.weights[at]
        maps = []
        for side, p in enumerate((self.seen.p_small[at], self.seen.p_large[at])):
            targets = self.scores[at, side]
            everyone = correction(logit(p), targets, weights)
            maps.append(fit_route_maps(logit(p), targets, routes, weights, everyone=everyone))
        radius = max(1.0, float(np.quantile(self.seen.ood[at], OOD_QUANTILE)))
        return Recalibration(maps[0], maps[1], radius)

    def held_out(self, folds: NDArray[np.intp], final: Recalibration) -> Predictions:
        """Corrected predictions, each row by the other folds' maps; the radius is that of `final`."""
        columns = np.empty((4, len(self.scores)))
        for fold in np.unique(folds):
            rows: NDArray[np.intp] = np.flatnonzero(folds == fold)
            rest: NDArray[np.intp] = np.flatnonzero(folds != fold)
            fitted = replace(self.fit(rest), radius=final.radius)
            one = fitted.apply(take(self.seen, rows), [self.routes[int(i)] for i in rows])
            columns[:, rows] = one.p_small, one.p_large, one.ood, one.score
        p_small, p_large, ood, score = columns
        return Predictions(p_small, p_large, ood, score, self.seen.small_tokens, self.seen.large_tokens)


def take(predictions: Predictions, rows: NDArray[np.intp]) -> Predictions:
    """Predictions of some rows."""
    one = predictions
    return Predictions(
        one.p_small[rows],
        one.p_large[rows],
        one.ood[rows],
        one.score[rows],
        None if one.small_tokens is None else one.small_tokens[rows],
        None if one.large_tokens is None else one.large_tokens[rows],
    )
