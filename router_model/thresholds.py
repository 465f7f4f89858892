"""From a wish for quality to a threshold on the routing score, with a lower confidence bound.

Requests are sent to the large model from the highest score down. At every large share the curve holds what part of the
gap between the models is recovered (PGR), and a bound from a bootstrap over groups.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

N_SHARES = 101
"""Points of the curve: large shares of 0, 1, … 100 %."""

CONFIDENCE = 0.95
"""One-sided confidence of the lower bound, and the coverage of the band when doubled-sided at 90 %."""

ALWAYS_LARGE, NEVER_LARGE = -2.0, 2.0
"""Thresholds that every score reaches and that none reaches: scores lie in [-1, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class QualityCurve:
    """Each field float64 [N_SHARES], by large share. A score at or above `thresholds[i]` goes to the large model.

    pgr: recovered part of the gap, 0 for all small and 1 for all large; it can exceed 1. lower and upper: bootstrap
    quantiles at 5 % and 95 %, each a one-sided 95 % bound.
    is_identified: the large model was better with 95 % confidence; without that the share stands in for pgr.
    """

    shares: Floats
    thresholds: Floats
    pgr: Floats
    lower: Floats
    upper: Floats
    is_identified: bool

    def point_for(self, quality: float) -> "CurvePoint":
        """The smallest large share whose lower bound of PGR reaches `quality`, 0 to 1. ValueError outside that range.

        The bound holds for each share by itself, on requests like those of the curve.
        """
        if not 0 <= quality <= 1:
            raise ValueError(f"the quality target is {quality}: use 0 (all small) to 1 (all large)")
        at = int(np.argmax(self.lower >= quality - 1e-9)) if quality > 0 else 0
        return CurvePoint(
            quality, float(self.thresholds[at]), float(self.shares[at]), float(self.pgr[at]), float(self.lower[at])
        )


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A threshold with what it promises: the target, the large share it costs, and PGR with its lower bound."""

    target: float
    threshold: float
    share: float
    pgr: float
    lower: float


def fit_curve(
    scores: Floats,
    labels: Floats,
    groups: NDArray[np.intp],
    rng: np.random.Generator,
    n_draws: int = 400,
) -> QualityCurve:
    """The curve of out-of-fold routing scores [n] in [-1, 1], labels [n, 2] (small, large) and group numbers [n].

    Whole groups are drawn with replacement, so that near duplicates do not narrow the band.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, gains, members = scores[order], (labels[:, 1] - labels[:, 0])[order], groups[order]
    n = len(scores)
    shares = np.linspace(0, 1, N_SHARES)
    cuts = np.round(shares * n).astype(np.intp)
    # Cut between different scores only: a threshold cannot part equal ones, so the cut moves up past them.
    cuts = np.searchsorted(-ranked, -ranked[np.maximum(cuts, 1) - 1], side="right") * (cuts > 0)
    thresholds = np.concatenate([[NEVER_LARGE], ranked])[cuts]
    thresholds[-1] = ALWAYS_LARGE
    draws = np.empty((n_draws, N_SHARES))
    total = np.empty(n_draws)
    n_groups = int(groups.max()) + 1
    for draw in range(n_draws):
        weights = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)[members]
        recovered = np.concatenate([[0.0], np.cumsum(gains * weights)])
        draws[draw], total[draw] = recovered[cuts], recovered[-1]
    if np.quantile(total, 1 - CONFIDENCE) <= 0:
        realised = cuts / n
        return QualityCurve(realised, thresholds, realised, realised, realised, is_identified=False)
    ratios = draws / np.where(total > 0, total, np.inf)[:, None]
    ratios[total <= 0] = -np.inf  # a draw without a gap counts against every share but the last
    ratios[:, -1] = 1.0
    recovered = np.concatenate([[0.0], np.cumsum(gains)])
    lower, upper = np.quantile(ratios, [1 - CONFIDENCE, CONFIDENCE], axis=0, method="inverted_cdf")
    return QualityCurve(cuts / n, thresholds, recovered[cuts] / recovered[-1], lower, upper, is_identified=True)
