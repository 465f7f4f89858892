"""What a router's wishes come to on given requests: by the threshold alone, and as it is served, request after request,
with shares that are kept, second chances, and drift that is noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.drift import DriftMonitor
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.options import Action, Cascade, RouteOptions
from router_model.plan import Plan, Planner
from router_model.score import EDGE


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What was decided for n requests, without exploration.

    fixed bool [n]: answered by the large model, at first or again, by the threshold alone (and, for a wish for quality,
    out of domain). served bool [n]: as it would be served in that order. is_calibrated bool [n]: the promise covered
    the request as served.
    """

    fixed: NDArray[np.bool_]
    served: NDArray[np.bool_]
    is_calibrated: NDArray[np.bool_]


def planner_of(artefact: RouterArtefact) -> Planner:
    """Plans of an artefact without prices, so that gains alone rank."""
    manifest = artefact.manifest
    return Planner(
        evidence=artefact.evidence,
        prices=None,
        targets={name: point.target for name, point in manifest.targets.items() if point.target is not None},
        share_targets=frozenset(manifest.share_targets),
    )


def serve(
    artefact: RouterArtefact,
    seen: Predictions,
    options: RouteOptions,
    routes: Sequence[str],
    second: Floats | None = None,
) -> Served:
    """Decide `seen` in its order as if every request had come with `options`, over a fresh start of the router.

    routes [n]: kinds of traffic. second [n]: what the small answers are judged by (`escalation.second_ranks`), where
    `options` have a cascade. Only what a gateway sees without grades is noticed: distances and the distribution of
    ranks. UnknownTarget, ConflictingWish: see `Planner.plan`.
    """
    plan = planner_of(artefact).plan(options)
    covered = seen.ood <= EDGE
    point = plan.point.threshold
    again = np.full(len(covered), -np.inf) if second is None or options.cascade is Cascade.OFF else second
    fixed = (seen.score >= point) | (again >= point)
    if plan.is_quality:
        fixed |= ~covered
    served, calibrated = _in_order(artefact, plan, seen, routes, again)
    return Served(fixed, served, calibrated)


def _in_order(
    artefact: RouterArtefact, plan: Plan, seen: Predictions, routes: Sequence[str], again: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    monitor = DriftMonitor(artefact.evidence, artefact.evidence.ranks(None))
    n = len(seen.score)
    served, calibrated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    for i, (rank, ood, route) in enumerate(zip(seen.score.tolist(), seen.ood.tolist(), routes, strict=True)):
        is_covered = ood <= EDGE and not monitor.state.concerns(route)
        served[i] = rank >= plan.threshold(is_covered=is_covered, pressure=0.0)
        calibrated[i] = is_covered
        escalates = not served[i] and again[i] >= plan.threshold(is_covered=True, pressure=0.0)
        if plan.controller is not None:
            plan.controller.observe(rank, float(served[i]) - plan.point.share)
            plan.controller.owe(float(escalates))
        served[i] |= escalates
        monitor.saw_request(rank, rank, ood, route)
    return served, calibrated


def drift_reasons(
    artefact: RouterArtefact, seen: Predictions, scores: NDArray[np.float64], routes: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What alarms after these requests: first without grades, then with both models' scores [n, 2] told as well."""
    monitor = DriftMonitor(artefact.evidence, artefact.evidence.ranks(None))
    for rank, ood, route in zip(seen.score.tolist(), seen.ood.tolist(), routes, strict=True):
        monitor.saw_request(rank, rank, ood, route)
    without = monitor.state.reasons
    for i, pair in enumerate(scores.tolist()):
        for action, p, score in zip(Action, (seen.p_small[i], seen.p_large[i]), pair, strict=True):
            if np.isfinite(score):
                monitor.saw_score(action, float(p), score)
    return without, monitor.state.reasons
