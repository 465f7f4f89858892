"""Who gets a second chance, what fails an answer, and which limits forbid another: without a server."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Finished, Prepared
from engine.request import DraftCounts, FinishReason, RequestTimeline
from gateway.prices import ModelPrice, PriceTable
from gateway.routing.ask import NOT_ASKED, RoutingAsk
from gateway.routing.cascade import PARTIAL, Chance, EscalateReason, NotEscalated, second_chance
from gateway.routing.decision import Decision
from gateway.routing.outcome import Outcome
from gateway.telemetry.metrics import Metrics
from router_model.cascade import Answer

PAGE = (Path(__file__).parents[2] / "docs/routing.md").read_text()
BOTH = ("small", "large")
PRICES = PriceTable(version="x", models={"small": ModelPrice(1, 0.5, 2), "large": ModelPrice(10, 5, 20)})


def decision(model: str = "small", reason: str = "score_below_threshold", **fields: Any) -> Decision:
    return Decision(**{"model": model, "reason": reason, "policy": "x", "eligible": BOTH, **fields})


def judge(_: Answer) -> None:
    return None


def chance(made: Decision, ask: RoutingAsk = NOT_ASKED, **fields: Any) -> Chance | None:
    options = {"mode": "confidence", "n": 1, "in_tool_loop": False, "hold_tokens": None, **fields}
    return second_chance(made, judge, ask, **options)


@pytest.mark.parametrize(
    ("made", "fields"),
    [
        (decision(reason="explicit", eligible=("small",)), {}),
        (decision(reason="only_eligible", eligible=("small",)), {}),
        (decision("large"), {}),
        (decision(), {"mode": "off"}),
        (decision(), {"n": 2}),
    ],
    ids=["explicit", "large cannot", "already large", "off", "several answers"],
)
def test_no_chance(made: Decision, fields: dict[str, Any]) -> None:
    assert chance(decision()) is not None
    assert chance(made, **fields) is None


def test_an_explored_request_keeps_its_chance() -> None:
    assert chance(decision(reason="explored", explored=True)) is not None


def test_confidence_is_judged_only_where_it_was_asked_for_and_may_count() -> None:
    confident, validated, looping = chance(decision()), chance(decision(), mode="validation"), None
    looping = chance(decision(), in_tool_loop=True)
    assert confident is not None
    assert validated is not None
    assert looping is not None
    assert confident.judge is judge
    assert validated.judge is looping.judge is None
    assert looping.keeps_model


@pytest.mark.parametrize(
    ("answer", "said", "reason"),
    [
        (Answer(text="7", n_tokens=1, reason="stop", is_valid=False), None, EscalateReason.INVALID),
        (Answer(text="7", n_tokens=1, reason="length", is_valid=False), None, EscalateReason.LENGTH),
        (Answer(text="a b", n_tokens=2, reason="length"), "a b", None),
        (Answer(text=" \n", n_tokens=2), " \n", EscalateReason.EMPTY),
        (Answer(text="I can't help.", n_tokens=2), "I can't help.", EscalateReason.REFUSAL),
        (Answer(text="", n_tokens=1, is_valid=True), None, None),
        (Answer(text="I can't help.", n_tokens=2, is_valid=True), None, None),
        (Answer(text="", n_tokens=4, reason=PARTIAL), "", None),
        (Answer(text="fine", n_tokens=1), "fine", None),
    ],
)
def test_failures(answer: Answer, said: str | None, reason: EscalateReason | None) -> None:
    assert Chance().failure(answer, said) is reason
    kept = Chance(keeps_model=True).failure(answer, said)
    assert kept is (reason if reason is EscalateReason.INVALID else None), "in a tool loop only the last resort"


@given(expected=st.floats(0, 1000), limit=st.integers(1, 1000))
def test_a_text_that_the_large_model_would_not_finish_either_has_not_failed(expected: float, limit: int) -> None:
    answer = Answer(text="so long", n_tokens=limit, reason="length")
    found = Chance(large_tokens=expected).failure(answer, "so long")
    assert found is (None if expected >= limit else EscalateReason.LENGTH)
    assert Chance(large_tokens=expected).failure(answer, None) is EscalateReason.LENGTH, "a constraint has to be met"


@given(
    limits=st.tuples(st.none() | st.floats(0, 9), st.none() | st.floats(0, 9)),
    spent=st.floats(0, 5),
    large=st.floats(0, 5),
    elapsed=st.floats(0, 5),
    wait=st.floats(0, 5),
    took=st.floats(0, 5),
    remaining=st.floats(0, 9),
)
def test_limits_hold_for_both_answers_together(
    limits: tuple[float | None, float | None],
    spent: float,
    large: float,
    elapsed: float,
    wait: float,
    took: float,
    remaining: float,
) -> None:
    max_cost_usd, max_ttft_s = limits
    allowed = Chance(max_cost_usd=max_cost_usd, max_ttft_s=max_ttft_s).allows(
        spent_usd=spent, large_usd=large, elapsed_s=elapsed, wait_s=wait, took_s=took, remaining_s=remaining
    )
    kept = [
        max_cost_usd is None or spent + large <= max_cost_usd,
        max_ttft_s is None or elapsed + wait <= max_ttft_s,
        remaining > took,
    ]
    assert allowed == all(kept)


def test_the_requests_own_limits_are_taken_over() -> None:
    found = chance(decision(), RoutingAsk(max_cost_usd=0.5, max_ttft_ms=250))
    assert found is not None
    assert (found.max_cost_usd, found.max_ttft_s) == (0.5, 0.25)


def prepared(n_prompt: int, cached: int) -> Prepared:
    return Prepared(
        id="1",
        handle="1",
        state=b"",
        state_shape=(0,),
        entropy=0.0,
        margin=0.0,
        prompt_tokens=n_prompt,
        cached_tokens=cached,
        computed_tokens=n_prompt - cached,
        queue_s=0.0,
        prefill_s=0.0,
    )


def ended(outcome: Outcome, n_tokens: int, cached: int = 0, drafts: Sequence[int] = (0, 0)) -> Outcome:
    counts = {"draft_model": DraftCounts(*drafts)} if drafts[0] else {}
    timeline = RequestTimeline(cached_tokens=cached, drafts=counts, drafted_tokens=drafts[0])
    outcome.saw_end(0, Finished(id="", reason=FinishReason.STOP, text="", token_ids=[1] * n_tokens, timeline=timeline))
    return outcome


small_tokens, large_tokens, cached = st.integers(1, 50), st.integers(1, 50), st.tuples(*[st.integers(0, 10)] * 2)


@given(small_tokens, large_tokens, cached, st.booleans(), st.integers(0, 9))
def test_an_escalated_request_pays_for_everything_once(
    n_small: int, n_large: int, found: tuple[int, int], has_prefill: bool, drafted: int
) -> None:
    made = decision()
    prefill = prepared(10, found[0]) if has_prefill else None
    first = ended(Outcome(decision=made, prompt_tokens=10, prepared=prefill), n_small, found[0])
    second = ended(
        Outcome(decision=made, model="large", prompt_tokens=12, prepared=prefill), n_large, found[1], (drafted, 0)
    )
    second.others.append(first)
    cost = second.cost(PRICES)
    small_usd = ((10 - found[0]) * 1 + found[0] * 0.5 + n_small * 2) / 1e6
    large_usd = ((12 - found[1]) * 10 + found[1] * 5 + n_large * 20) / 1e6
    assert cost.discarded_usd == pytest.approx(small_usd)
    assert cost.answer_usd == pytest.approx(large_usd)
    assert cost.cost_if_large_usd == pytest.approx(large_usd), "what the large model alone would have cost"
    assert cost.route_usd == 0, "the prefill is in the small model's answer"
    assert cost.draft_usd == pytest.approx(drafted * 2 / 1e6)
    assert cost.total_usd == pytest.approx(small_usd + large_usd + drafted * 2 / 1e6)
    assert second.judged is first
    assert second.discarded is first


def test_an_attempt_that_was_never_admitted_costs_nothing_and_is_not_shown() -> None:
    made = decision()
    first = ended(Outcome(decision=made, prompt_tokens=10), 5)
    alone = first.cost(PRICES)
    first.others.append(Outcome(decision=made, model="large", prompt_tokens=12))
    assert first.cost(PRICES) == alone
    assert first.discarded is None


def test_the_page_about_routing_names_every_reason_and_counter() -> None:
    section = PAGE.partition("\n## The second chance")[2].partition("\n## ")[0]
    assert all(f"| `{reason}` |" in section for reason in EscalateReason)
    assert all(f"`{reason}`" in section for reason in NotEscalated)
    served = Metrics().render().decode()
    named = set(re.findall(r"(pointsman_\w+)_total", section))
    assert len(named) == 2
    assert all(f"# TYPE {name}_total counter" in served for name in named)
