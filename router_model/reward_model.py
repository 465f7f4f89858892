"""What reward to expect of either model, fitted to a log without looking at the row that it is asked about.

The doubly robust estimate needs nothing more; it stays unbiased where these predictions are wrong.
"""

import numpy as np
from numpy.typing import NDArray

from router_model.folds import grouped_folds
from router_model.logistic import Floats
from router_model.off_policy import Logged

FOLDS = 5
RIDGE = 5.0
"""Penalty on standardised slopes, in rows: with a hundred explored rows it matters, with thousands it doesn't."""


def cross_fitted_rewards(log: Logged, evidence: Floats, rng: np.random.Generator) -> Floats:
    """Expected reward of small and large, float64 [n, 2], by ridge regression on `evidence` in grouped folds.

    evidence float64 [n, d]: what was known when deciding (p_small and p_large, say); a missing number is its column's
    mean. Each action's regression sees the rows that took it, weighted by 1 / propensity, so that the few explored rows
    speak for the many like them. Folds part no conversation. An action that a fold's rows never took, or took fewer
    than twice, is expected to bring the mean reward of all rows.
    """
    n = len(log)
    predicted = np.full((n, 2), float(np.average(log.reward, weights=log.weight)))
    clusters = np.unique(log.clusters, return_inverse=True)[1].astype(np.intp)
    n_folds = min(FOLDS, int(clusters.max()) + 1)
    if n_folds < 2:
        return predicted
    folds = grouped_folds(clusters, n_folds, rng)
    known = _filled(evidence)
    for fold in range(n_folds):
        held = folds == fold
        for action in range(2):
            rows = ~held & (log.went_large == bool(action))
            if rows.sum() >= 2:
                predicted[held, action] = _ridge(
                    known[rows], log.reward[rows], (log.weight / log.propensity)[rows], known[held]
                )
    return predicted


def _ridge(design: Floats, reward: Floats, weight: Floats, asked: Floats) -> Floats:
    """Predictions for `asked` [m, d]; held within the rewards that were seen."""
    weight = weight / weight.mean()
    centre, middle = np.average(design, axis=0, weights=weight), float(np.average(reward, weights=weight))
    centred = design - centre
    scale = np.sqrt(np.average(np.square(centred), axis=0, weights=weight))
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = centred / scale
    penalty = RIDGE * np.eye(x.shape[1])
    slopes = np.linalg.solve((x * weight[:, None]).T @ x + penalty, (x * weight[:, None]).T @ (reward - middle))
    result: Floats = np.clip(middle + (asked - centre) / scale @ slopes, reward.min(), reward.max())
    return result


def _filled(evidence: Floats) -> Floats:
    known: NDArray[np.bool_] = np.isfinite(evidence)
    counts = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, evidence, 0.0).sum(axis=0) / counts
    filled: Floats = np.where(known, evidence, means)
    return filled
