"""Measures of a router on prompts whose outcomes under both models are known.

labels are float64 [n, 2]: the score of the small and of the large model, 0 to 1. scores are float64 [n]: the higher,
the sooner a prompt goes to the large model. Ties are broken at random, which means here: by expectation, not by a draw.
"""

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

ECE_BINS = 10


def share_curve(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Large shares and mean quality there, [k + 1] each for k different scores:

    the exact curve, straight between points.

    A group of tied scores is one straight piece, since a random part of the group lies on it in expectation.
    """
    _, rank, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    gains = np.bincount(rank, labels[:, 1] - labels[:, 0])
    shares = np.concatenate([[0.0], np.cumsum(counts)]) / len(scores)
    quality = labels[:, 0].mean() + np.concatenate([[0.0], np.cumsum(gains)]) / len(scores)
    return shares, quality


def pgr(quality: Floats | float, labels: Floats) -> Floats | float:
    """Performance gap recovered: 0 at the small model's quality, 1 at the large one's. NaN where the two are equal."""
    small, large = labels.mean(axis=0)
    return (quality - small) / (large - small) if large != small else np.nan * quality


def apgr(scores: Floats, labels: Floats) -> float:
    """Area under PGR over all large shares. Random is 0.5. NaN where the models are equally good."""
    shares, quality = share_curve(scores, labels)
    return float(np.trapezoid(np.asarray(pgr(quality, labels)), shares))


def eleven_points(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """RouteLLM's grid: large shares of 0, 10, … 100 % and quality there, [11] each.

    Their code (evaluate.py of lm-sys/RouteLLM) cuts the scores at the deciles, which is this where no scores are equal;
    where they are, its cuts collapse, and this still breaks ties at random.
    """
    shares = np.linspace(0, 1, 11)
    return shares, np.interp(shares, *share_curve(scores, labels))


def cpt(scores: Floats, labels: Floats, target: float) -> float:
    """Call-performance threshold: the large share, in per cent, at which PGR reaches `target` (0.5 for CPT50).

    Interpolated over RouteLLM's grid; where PGR is not monotone the first crossing counts. NaN where the models are
    equal.
    """
    shares, quality = eleven_points(scores, labels)
    return crossing(shares, np.asarray(pgr(quality, labels)), target)


def crossing(shares: Floats, recovered: Floats, target: float) -> float:
    """Per cent of the large model at which `recovered` [k], rising with shares [k], first reaches `target`."""
    above = np.flatnonzero(recovered >= target)
    if not above.size:
        return float("nan")
    at = int(above[0])
    if at == 0:
        return 100 * float(shares[0])
    step = (target - recovered[at - 1]) / (recovered[at] - recovered[at - 1])
    return 100 * float(shares[at - 1] + step * (shares[at] - shares[at - 1]))


def is_large_needed(labels: Floats) -> NDArray[np.bool_]:
    """Where the small model is wrong and the large one right; a score from 0.5 is right."""
    return (labels[:, 0] < 0.5) & (labels[:, 1] >= 0.5)


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive has a higher score than a negative, ties counting half (Mann-Whitney).

    NaN without both.
    """
    _, rank, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # mean rank, from 1, of each group of ties
    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = float(middle[rank][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def ece(p: Floats, targets: Floats, n_bins: int = ECE_BINS) -> float:
    """Expected calibration error: mean |mean p - mean target| over bins of equal mass, weighted by their size."""
    return float(sum(size * abs(bias) for size, bias, _ in _bins(p, targets, n_bins)) / len(p))


def ece_debiased(p: Floats, targets: Floats, n_bins: int = ECE_BINS) -> float:
    """Root of the squared calibration error less what noise alone gives (Kumar, Liang and Ma, 2019, the debiased l2
    error).
    """
    total = sum(size * (bias**2 - variance) for size, bias, variance in _bins(p, targets, n_bins))
    return float(np.sqrt(max(total / len(p), 0.0)))


def brier(p: Floats, targets: Floats) -> float:
    """Mean squared difference."""
    return float(np.mean(np.square(p - targets)))


def _bins(p: Floats, targets: Floats, n_bins: int) -> list[tuple[int, float, float]]:
    """(rows, mean p - mean target, variance of the mean target) of each bin of equal mass."""
    order = np.argsort(p, kind="stable")
    bins = []
    for part in np.array_split(order, min(n_bins, len(p))):
        variance = float(targets[part].var(ddof=1)) / len(part) if len(part) > 1 else 0.0
        bins.append((len(part), float(p[part].mean() - targets[part].mean()), variance))
    return bins
