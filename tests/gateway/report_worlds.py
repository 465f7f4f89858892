"""Decisions with a known truth, as the router's report reads them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from gateway.reports.facts import Facts
from gateway.reports.router_report import InForce, RouterReport, router_report
from gateway.storage.grades import Grade
from gateway.storage.identifiers import new_id

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
IN_FORCE = InForce(policy="state-router-1", artefact_hash="ab" * 32, price_version="2026-11")
EPSILON = 0.1


def grade(score: float, *, shadow: bool = False, keep_prob: float = 1.0, cost_usd: float = 0.0) -> Grade:
    return Grade(
        score=score,
        feedback=None,
        source="test",
        weight=1.0,
        shadow=shadow,
        keep_prob=keep_prob,
        tokens=None,
        cost_usd=cost_usd,
        logprob_mean=None,
        logprob_min=None,
        valid=None,
    )


def fact(i: int = 0, **fields: object) -> Facts:
    """A routed request that went small, with what is asked for."""
    known: dict[str, object] = {
        "id": new_id(),
        "created_at": NOW - timedelta(minutes=100_000 - i),
        "key": None,
        "route": "auto",
        "session_hash": None,
        "artefact_hash": None,
        "features_version": None,
        "eligible": ["small", "large"],
        "p_small": None,
        "p_large": None,
        "score": None,
        "ood_score": None,
        "expected_cost_usd": {},
        "threshold": None,
        "target": "auto",
        "wanted": {},
        "action": "small",
        "reason": "score_below_threshold",
        "propensity": 1.0,
        "keep_prob": 1.0,
        "explored": False,
        "pinned": False,
        "calibrated": True,
        "early": False,
        "overhead_s": 0.0005,
        "model_served": "small",
        "escalated": False,
        "escalate_reason": None,
        "ttft_s": 0.1,
        "itl_s": 0.01,
        "duration_s": 1.0,
        "prompt_tokens": 10,
        "cached_tokens": 5,
        "completion_tokens": 10,
        "cost_usd": 1.0,
        "cost_if_large_usd": 6.0,
        "valid": None,
        "feedback": None,
        "grade": None,
    }
    return Facts(**(known | fields))  # type: ignore[arg-type]


def world(n: int, seed: int, *, with_pairs: bool = False) -> list[Facts]:
    """Decisions at threshold 0.2 with exploration. Small is right with 1 - difficulty, large with 1 - difficulty / 4.

    Small costs 1 and large 6 times the request's size.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        difficulty, size = float(rng.random()), float(rng.exponential())
        p_small, p_large = 1 - difficulty, 1 - difficulty / 4
        scores = float(rng.random() < p_small), float(rng.random() < p_large)
        is_large, explored = p_large - p_small >= 0.2, bool(rng.random() < EPSILON)
        went_large = is_large != explored
        model, score = ("large", scores[1]) if went_large else ("small", scores[0])
        grades = {model: grade(score)}
        if with_pairs:
            other, other_score = ("small", scores[0]) if went_large else ("large", scores[1])
            cost = 1 * size if went_large else 6 * size
            grades[other] = grade(other_score, shadow=True, keep_prob=0.5, cost_usd=cost)
        rows.append(
            fact(
                i,
                action=model,
                model_served=model,
                explored=explored,
                propensity=EPSILON if explored else 1 - EPSILON,
                p_small=p_small,
                p_large=p_large,
                score=p_large - p_small,
                threshold=0.2,
                ood_score=0.5,
                reason="explored" if explored else "score_above_threshold",
                cost_usd=(6 if went_large else 1) * size,
                cost_if_large_usd=6 * size,
                expected_cost_usd={"small": size, "large": 6 * size},
                grades=grades,
            )
        )
    return rows


def made(facts: Sequence[Facts]) -> RouterReport:
    return router_report(facts, IN_FORCE, since=None, until=NOW, scope="all keys")
