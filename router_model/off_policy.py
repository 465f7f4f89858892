"""What another policy would have scored, estimated from logged decisions with known propensities.

Both estimators weigh each logged reward by (probability under the new policy) / (propensity of the logged action).
Intervals are clustered by conversation, so that many turns of one talk count as one observation.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

MIN_ESS = 200.0
"""Below this effective sample size no estimate is given."""

MAX_WEIGHT = 100.0
"""Importance weights are clipped here: with exploration of 1 % and more nothing is."""

CONFIDENCE = 0.95


class Unidentifiable(ValueError):
    """The log cannot answer the question; the message says why and what to log instead."""


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """n logged decisions.

    went_large bool [n]: the action. propensity [n]: probability that the logging policy gave it, 1.0 if deterministic.
    reward [n]: what came of it. clusters int [n]: conversation numbers.
    """

    went_large: NDArray[np.bool_]
    propensity: Floats
    reward: Floats
    clusters: NDArray[np.intp]

    def __post_init__(self) -> None:
        """Raise ValueError for lengths that differ, an empty log or a propensity outside (0, 1]."""
        sizes = {len(self.went_large), len(self.propensity), len(self.reward), len(self.clusters)}
        if sizes == {0} or len(sizes) > 1:
            raise ValueError(f"a log needs at least one decision and equally long columns, not {sorted(sizes)}")
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise ValueError("a propensity lies outside (0, 1]: log the probability of the action that was taken")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A policy's mean reward with its 95 % interval. ess: effective sample size of the weights (Kish)."""

    value: float
    lower: float
    upper: float
    ess: float
    n: int


def snips(log: Logged, large_probability: Floats) -> Estimate:
    """Self-normalised inverse propensity estimate (Swaminathan and Joachims, 2015), interval by linearisation.

    large_probability [n]: probability of the large model under the policy asked about. Unidentifiable: see `weights`.
    """
    w, ess = weights(log, large_probability)
    value = float(w @ log.reward / w.sum())
    influence = w * (log.reward - value) / w.mean()
    return _estimate(value, influence, log.clusters, ess)


def doubly_robust(log: Logged, large_probability: Floats, predicted: Floats) -> Estimate:
    """Doubly robust estimate (Dudík, Langford and Li, 2011): the model's prediction, corrected where the log disagrees.

    predicted [n, 2]: reward expected of small and large, from a model that was not fitted to these rows. Unbiased
    whatever the predictions; the better they are, the narrower. Unidentifiable: see `weights`.
    """
    w, ess = weights(log, large_probability)
    expected = predicted[:, 0] + large_probability * (predicted[:, 1] - predicted[:, 0])
    taken = np.where(log.went_large, predicted[:, 1], predicted[:, 0])
    scores = expected + w * (log.reward - taken)
    value = float(scores.mean())
    return _estimate(value, scores - value, log.clusters, ess)


def weights(log: Logged, large_probability: Floats) -> tuple[Floats, float]:
    """Clipped importance weights [n] and their effective sample size.

    Unidentifiable: the policy asked about would do what the log never did for such a request (a deterministic row, and
    the other action), or the effective sample size is below MIN_ESS.
    """
    asked = np.where(log.went_large, large_probability, 1 - large_probability)
    unsupported = int(((log.propensity >= 1) & (asked < 1)).sum())
    if unsupported:
        raise Unidentifiable(
            f"{unsupported} of {len(asked)} logged decisions had no alternative, but the policy asked about takes one: "
            "log with exploration, or leave those requests out"
        )
    w = np.minimum(asked / log.propensity, MAX_WEIGHT)
    ess = float(w.sum() ** 2 / np.maximum(np.square(w).sum(), 1e-300))
    if ess < MIN_ESS:
        raise Unidentifiable(
            f"the effective sample size is {ess:.0f}, and an estimate needs {MIN_ESS:.0f}: log more "
            "decisions, or explore more"
        )
    return w, ess


def _estimate(value: float, influence: Floats, clusters: NDArray[np.intp], ess: float) -> Estimate:
    """Interval from the cluster-robust variance of a mean."""
    n = len(influence)
    sums = np.bincount(np.unique(clusters, return_inverse=True)[1], influence)
    k = len(sums)
    if k < 2:
        raise Unidentifiable("the log holds a single conversation: no interval can be given")
    error = float(np.sqrt(k / (k - 1) * np.square(sums).sum())) / n
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * error
    return Estimate(value, value - half, value + half, ess, n)
