"""An evaluation of scores against outcomes: every metric with a bootstrap interval over groups."""

import math
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats
from router_model.metrics import (
    apgr,
    auroc,
    brier,
    crossing,
    ece,
    ece_debiased,
    is_large_needed,
    pgr,
    share_curve,
)

INTERVAL = (0.025, 0.975)
N_DRAWS = 300

Draws = list[NDArray[np.intp]]
"""Row numbers: first all rows as they are, then bootstrap draws of whole groups."""


class Measured(msgspec.Struct, frozen=True):
    """A value with its 95 % bootstrap interval; None where undefined (models equally good, one class only)."""

    value: float | None
    lower: float | None
    upper: float | None


class RoutingQuality(msgspec.Struct, frozen=True):
    """How well a ranking routes. apgr over all thresholds, apgr_eleven on RouteLLM's grid, cpt50 and cpt80 in per cent,
    quality_at_half: mean score with half of the prompts on the large model.
    """

    apgr: Measured
    apgr_eleven: Measured
    cpt50: Measured
    cpt80: Measured
    auroc_need: Measured
    quality_at_half: Measured


class Calibration(msgspec.Struct, frozen=True):
    """How honest a model's probabilities are, see metrics.py."""

    ece: Measured
    ece_debiased: Measured
    brier: Measured


def bootstrap(groups: NDArray[np.intp], rng: np.random.Generator, n_draws: int = N_DRAWS) -> Draws:
    """All rows as they are, then `n_draws` draws of whole groups [n] with replacement."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.unique(groups))
    members = np.split(order, starts[1:])
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(n_draws))
    return [np.arange(len(groups)), *(np.concatenate([members[i] for i in numbers]) for numbers in drawn)]


def measured(metric: Callable[[NDArray[np.intp]], float], draws: Draws) -> Measured:
    """The metric of the rows as they are, its interval over the draws (those where it is undefined are left out)."""
    return from_draws(np.array([metric(rows) for rows in draws]))


def from_draws(values: Floats) -> Measured:
    """The first value, with the interval of the others."""
    value, others = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not math.isfinite(value) or not others.size:
        return Measured(value if math.isfinite(value) else None, None, None)
    lower, upper = np.quantile(others, INTERVAL)
    return Measured(value, float(lower), float(upper))


def routing_quality(scores: Floats, labels: Floats, draws: Draws) -> RoutingQuality:
    """Measure scores [n] against labels [n, 2]."""
    values = np.array([_metrics(scores[rows], labels[rows]) for rows in draws])
    return RoutingQuality(*(from_draws(column) for column in values.T))


def _metrics(scores: Floats, labels: Floats) -> tuple[float, ...]:
    """In the order of RoutingQuality's fields, each as its function in metrics.py has it, from one curve."""
    curve = share_curve(scores, labels)
    grid = np.linspace(0, 1, 11)
    recovered, on_grid = (np.asarray(pgr(quality, labels)) for quality in (curve[1], np.interp(grid, *curve)))
    return (
        float(np.trapezoid(recovered, curve[0])),
        float(np.trapezoid(on_grid, grid)),
        crossing(grid, on_grid, 0.5),
        crossing(grid, on_grid, 0.8),
        auroc(scores, is_large_needed(labels)),
        float(np.interp(0.5, *curve)),
    )


def calibration(p: Floats, targets: Floats, draws: Draws) -> Calibration:
    """Measure probabilities [n] against targets [n] in [0, 1]."""
    return Calibration(
        *(
            measured(lambda rows, metric=metric: metric(p[rows], targets[rows]), draws)  # type: ignore[misc]
            for metric in (ece, ece_debiased, brier)
        )
    )


def apgr_differences(scores: Floats, rivals: Mapping[str, Floats], labels: Floats, draws: Draws) -> dict[str, Measured]:
    """APGR of `scores` less that of each rival, on the same draws (paired, so much narrower than two intervals)."""
    ours = np.array([apgr(scores[rows], labels[rows]) for rows in draws])
    return {
        name: from_draws(ours - np.array([apgr(rival[rows], labels[rows]) for rows in draws]))
        for name, rival in rivals.items()
    }
