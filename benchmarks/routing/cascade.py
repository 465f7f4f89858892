"""What the second chance is worth: the router with and without it, at equal cost, on recorded answers.

A request that stays on the small model is answered there, and the answer is judged as the policy judges it: it goes up
where it failed, or where the large model's expected gain over this very answer, by the cost of asking it now, reaches
the threshold. Then both answers are paid for. Every threshold gives one point of cost and quality.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing.quality import GRID, Ranking, Rows
from router_model.artefact import RouterArtefact
from router_model.cascade import Answer
from router_model.costs import row_costs
from router_model.escalation import recorded_failure
from router_model.evaluation import Measured, from_draws
from router_model.features import extract_outcome
from router_model.logistic import Floats
from router_model.options import Cascade
from router_model.outcomes import Outcome

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CascadeGain:
    """Points of exact match over the router alone, averaged over the cost axis, by how answers are judged: `validation`
    looks at failures only. at_auto: cost (part of all large), quality and share of small answers that went up, each at
    the threshold in force for it."""

    validation: Measured
    confidence: Measured
    at_auto: dict[str, tuple[float, float, float]]


def cascade_gain(
    artefact: RouterArtefact, rows: Rows, ranking: Ranking, thresholds: Mapping[Cascade, float]
) -> CascadeGain:
    """thresholds: those in force, by cascade. ValueError: the artefact has no cascade model."""
    judge = artefact.cascade
    if judge is None:
        raise ValueError("the router was trained without the small model's answers: there is no cascade to measure")
    seen = artefact.predict([extract_outcome(one, artefact.kind) for one in rows.outcomes])
    answers = [_answer(one) for one in rows.outcomes]
    right = np.array(
        [judge.p_right(*one) for one in zip(seen.p_small.tolist(), seen.p_large.tolist(), answers, strict=True)]
    )
    costs = row_costs(rows.prices, rows.tokens, has_prefill=True)
    scale = artefact.evidence.priced(rows.prices).scale
    gain = seen.p_large - right
    again = gain if scale is None else scale.rank(gain, costs.large)
    failed = np.array([recorded_failure(answer) is not None for answer in answers])
    never = np.full(len(again), -np.inf)
    ways = {"router": (never, np.zeros_like(failed)), "validation": (never, failed), "confidence": (again, failed)}
    curves = {name: _curves(rows, ranking, *way) for name, way in ways.items()}
    at_auto = {}
    for (name, (judged, fails)), cascade in zip(ways.items(), Cascade, strict=True):
        threshold = thresholds[cascade]
        goes_up = ranking.ranks >= threshold
        escalated = ~goes_up & (fails | (judged >= threshold))
        cost, quality = _spent(rows, goes_up, escalated, _is_early(ranking, threshold))
        at_auto[name] = (cost.mean() / costs.large.mean(), quality.mean(), float(escalated.sum() / (~goes_up).sum()))
    return CascadeGain(
        validation=from_draws(100 * (curves["validation"] - curves["router"]).mean(axis=1)),
        confidence=from_draws(100 * (curves["confidence"] - curves["router"]).mean(axis=1)),
        at_auto=at_auto,
    )


def _answer(outcome: Outcome) -> Answer:
    return Answer(
        text=outcome.weak_response or "",
        n_tokens=outcome.small_tokens or 0,
        logprob_mean=outcome.small_logprob_mean,
        logprob_min=outcome.small_logprob_min,
        is_valid=outcome.small_valid,
    )


def _is_early(ranking: Ranking, threshold: float) -> Flags:
    found: Flags = np.zeros(len(ranking.ranks), bool) if ranking.early is None else ranking.early >= threshold
    return found


def _spent(rows: Rows, goes_up: Flags, escalated: Flags, early: Flags) -> tuple[Floats, Floats]:
    """Cost and score of each row. early: it goes up without a prefill."""
    costs = row_costs(rows.prices, rows.tokens, has_prefill=True)
    on_large = costs.large + np.where(goes_up, np.where(early, 0.0, costs.route), costs.small)
    is_large = goes_up | escalated
    return np.where(is_large, on_large, costs.small), np.where(is_large, rows.scores[:, 1], rows.scores[:, 0])


def _curves(rows: Rows, ranking: Ranking, judged: Floats, failed: Flags) -> Floats:
    """Quality at each cost of GRID, by draw: the best that a threshold reaches within it."""
    ranks = ranking.ranks
    thresholds = np.quantile(np.concatenate([ranks, judged[np.isfinite(judged)]]), np.linspace(1, 0, 121))
    points = [
        (up := ranks >= t, ~up & (failed | (judged >= t)), _is_early(ranking, t))
        for t in (np.inf, *thresholds.tolist())
    ]
    table = np.array([_spent(rows, *point) for point in points])  # [thresholds, (cost, score), rows]
    costs = row_costs(rows.prices, rows.tokens, has_prefill=True)
    found = []
    for drawn in rows.draws:
        base, whole = costs.small[drawn].mean(), costs.large[drawn].mean()
        cost, quality = table[:, :, drawn].mean(axis=2).T
        spent = (cost - base) / (whole - base)
        order = np.argsort(spent, kind="stable")
        # Below the cheapest point of a cascade there is the small model without it.
        small = rows.scores[drawn, 0].mean()
        found.append(np.interp(GRID, np.append(0.0, spent[order]), np.append(small, quality[order])))
    return np.array(found)
