"""An evaluation of scores against outcomes: every metric with an interval, beside random, length and oracle."""

import math
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats
from router_model.metrics import (
    apgr,
    apgr_eleven,
    auroc,
    brier,
    cpt,
    ece,
    ece_debiased,
    is_large_needed,
    quality_at_share,
)

INTERVAL = (0.025, 0.975)


class Measured(msgspec.Struct, frozen=True):
    """A value with its 95 % bootstrap interval; None where undefined (models equally good, one class only)."""

    value: float | None
    lower: float | None
    upper: float | None


class RoutingQuality(msgspec.Struct, frozen=True):
    """How well a ranking routes. apgr over all thresholds, apgr_eleven on RouteLLM's grid, cpt in per cent."""

    apgr: Measured
    apgr_eleven: float | None
    cpt50: float | None
    cpt80: float | None
    auroc_need: Measured
    quality_at_half: float


class Calibration(msgspec.Struct, frozen=True):
    """How honest a model's probabilities are, see metrics.py."""

    ece: float
    ece_debiased: float
    brier: float


def routing_quality(
    scores: Floats, labels: Floats, groups: NDArray[np.intp], rng: np.random.Generator, n_draws: int = 300
) -> RoutingQuality:
    """Measure scores [n] against labels [n, 2], with a bootstrap over groups [n]."""
    draws = _draws(groups, rng, n_draws)
    return RoutingQuality(
        apgr=_measured(lambda rows: apgr(scores[rows], labels[rows]), draws),
        apgr_eleven=_finite(apgr_eleven(scores, labels)),
        cpt50=_finite(cpt(scores, labels, 0.5)),
        cpt80=_finite(cpt(scores, labels, 0.8)),
        auroc_need=_measured(lambda rows: auroc(scores[rows], is_large_needed(labels[rows])), draws),
        quality_at_half=quality_at_share(scores, labels, 0.5),
    )


def calibration(p: Floats, targets: Floats) -> Calibration:
    """Measure probabilities [n] against targets [n] in [0, 1]."""
    return Calibration(ece(p, targets), ece_debiased(p, targets), brier(p, targets))


def apgr_differences(
    scores: Floats,
    rivals: Mapping[str, Floats],
    labels: Floats,
    groups: NDArray[np.intp],
    rng: np.random.Generator,
    n_draws: int = 300,
) -> dict[str, Measured]:
    """APGR of `scores` less that of each rival, on the same bootstrap draws (paired, so much narrower than two
    intervals).
    """
    draws = _draws(groups, rng, n_draws)

    def difference(rival: Floats) -> Measured:
        return _measured(lambda rows: apgr(scores[rows], labels[rows]) - apgr(rival[rows], labels[rows]), draws)

    return {name: difference(rival) for name, rival in rivals.items()}


def _draws(groups: NDArray[np.intp], rng: np.random.Generator, n_draws: int) -> list[NDArray[np.intp]]:
    """Row numbers: first all rows as they are, then bootstrap draws of whole groups."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.unique(groups))
    members = np.split(order, starts[1:])
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(n_draws))
    return [np.arange(len(groups)), *(np.concatenate([members[i] for i in numbers]) for numbers in drawn)]


def _measured(metric: Callable[[NDArray[np.intp]], float], draws: list[NDArray[np.intp]]) -> Measured:
    """The metric on the first draw, its interval over the others (those where it is undefined are left out)."""
    value = metric(draws[0])
    values = np.array([metric(rows) for rows in draws[1:]])
    values = values[np.isfinite(values)]
    if not math.isfinite(value) or not values.size:
        return Measured(_finite(value), None, None)
    lower, upper = np.quantile(values, INTERVAL)
    return Measured(value, float(lower), float(upper))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
