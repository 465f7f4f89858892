"""Estimates from answers that chance drew for grading: each stands for those like it that were passed over."""

from typing import Literal

import msgspec
import numpy as np
import pytest

from gateway.reports.facts import Facts
from gateway.reports.knowledge import ExploredKnowledge, knowledge_of
from gateway.reports.other_policies import Reward, value_policies
from tests.gateway.report_worlds import fact, grade


def half_drawn(n: int, rng: np.random.Generator) -> list[Facts]:
    """Of every other request all answers are good, cost 1 and are graded; the rest are bad, cost 3, and one in ten
    is graded.
    """
    rows = []
    for i in range(n):
        is_bad = bool(i % 2)
        model = "large" if rng.random() < 0.5 else "small"
        graded_prob = 0.1 if is_bad else 1.0
        told = msgspec.structs.replace(grade(0.0 if is_bad else 1.0), graded_prob=graded_prob)
        rows.append(
            fact(
                i,
                action=model,
                model_served=model,
                propensity=0.5,
                p_small=0.5,
                p_large=0.5,
                cost_usd=3.0 if is_bad else 1.0,
                grades={model: told} if rng.random() < graded_prob else {},
            )
        )
    return rows


@pytest.mark.parametrize(("kind", "truth"), [("score", 0.5), ("cost", 2.0)])
def test_a_policys_value_is_that_over_all_requests(kind: Literal["score", "cost"], truth: float) -> None:
    rows = half_drawn(6_000, np.random.default_rng(0))
    (logged,) = value_policies(rows, {}, scope="all", reward=Reward(kind=kind), routers={}).policies
    assert logged.dr is not None
    assert logged.dr.lower <= truth <= logged.dr.upper
    assert logged.dr.upper - logged.dr.lower < 0.2


def test_the_quality_that_clients_got_is_that_over_all_requests() -> None:
    known = knowledge_of(half_drawn(6_000, np.random.default_rng(0)), np.random.default_rng(1))
    assert isinstance(known, ExploredKnowledge)
    quality, cost = known.current()
    assert quality.lower <= 0.5 <= quality.upper
    assert quality.upper - quality.lower < 0.2
    assert cost.value == pytest.approx(2.0, abs=0.1)
