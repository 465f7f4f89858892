"""What drafts did for an answer: usage adds up over choices and sources; only what the small model drafted costs."""

import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CompletionUsage

from engine.messages import Finished
from engine.request import DraftCounts, FinishReason, RequestTimeline
from engine.speculation.proposer import Source
from gateway.openai.ledger import usage
from gateway.prices import ModelPrice, PriceTable
from gateway.routing.decision import Decision
from gateway.routing.outcome import Outcome

PRICES = PriceTable(version="x", models={"small": ModelPrice(0, 0, 1), "large": ModelPrice(0, 0, 10)})

counts = st.tuples(st.integers(0, 63), st.integers(0, 63)).map(lambda pair: DraftCounts(max(pair), min(pair)))
by_source = st.dictionaries(st.sampled_from([source.value for source in Source]), counts)


def timeline(drafts: dict[str, DraftCounts], forced: int = 0) -> RequestTimeline:
    return RequestTimeline(
        drafts=drafts,
        drafted_tokens=sum(found.drafted for found in drafts.values()),
        accepted_tokens=sum(found.accepted for found in drafts.values()),
        forced_tokens=forced,
    )


def outcome(*timelines: RequestTimeline, model: str = "large", n_tokens: int = 0) -> Outcome:
    decision = Decision(id=uuid.uuid4(), model=model, reason="explicit", policy="rule-1", eligible=(model,))
    made = Outcome(decision=decision, prompt_tokens=3)
    for index, found in enumerate(timelines):
        end = Finished(id="", reason=FinishReason.STOP, text="", token_ids=[1] * n_tokens, timeline=found)
        made.saw_end(index, end)
    return made


timelines = st.lists(st.builds(timeline, by_source, st.integers(0, 9)), max_size=4)


@given(timelines)
def test_usage_adds_up_over_choices_and_proposers(choices: list[RequestTimeline]) -> None:
    details = usage(outcome(*choices)).completion_tokens_details
    drafted = sum(choice.drafted_tokens for choice in choices)
    accepted = sum(choice.accepted_tokens for choice in choices)
    forced = sum(choice.forced_tokens for choice in choices)
    found = details.speculation
    if found is msgspec.UNSET:
        assert drafted == forced == 0
        return
    assert (found.drafted, found.accepted, found.wasted, found.forced) == (
        drafted,
        accepted,
        drafted - accepted,
        forced,
    )
    for name in ("drafted", "accepted", "wasted"):
        assert sum(getattr(proposer, name) for proposer in found.by_proposer.values()) == getattr(found, name)
    assert all(proposer.drafted for proposer in found.by_proposer.values())


@given(timelines)
def test_prediction_tokens_are_those_of_the_prediction_alone(choices: list[RequestTimeline]) -> None:
    details = usage(outcome(*choices)).completion_tokens_details
    ours = [choice.drafts["prediction"] for choice in choices if "prediction" in choice.drafts]
    assert details.accepted_prediction_tokens == sum(found.accepted for found in ours)
    assert details.rejected_prediction_tokens == sum(found.drafted - found.accepted for found in ours)


@given(timelines)
def test_the_official_client_reads_the_usage_and_keeps_what_is_ours(choices: list[RequestTimeline]) -> None:
    sent = msgspec.json.encode(usage(outcome(*choices)))
    read = CompletionUsage.model_validate_json(sent, strict=True)
    details = read.completion_tokens_details
    assert details is not None
    assert details.accepted_prediction_tokens is not None
    ours = msgspec.json.decode(sent)["completion_tokens_details"]
    assert details.to_dict() == ours
    assert ("speculation" in ours) == any(choice.drafted_tokens or choice.forced_tokens for choice in choices)


@given(timelines, st.integers(0, 20))
def test_only_what_the_small_model_drafted_costs_anything(choices: list[RequestTimeline], n_tokens: int) -> None:
    cost = outcome(*choices, n_tokens=n_tokens).cost(PRICES)
    drafted = [choice.drafts["draft_model"].drafted for choice in choices if "draft_model" in choice.drafts]
    assert cost.draft_usd == pytest.approx(sum(drafted) * 1e-6)
    assert cost.answer_usd == pytest.approx(len(choices) * n_tokens * 10e-6)
    assert cost.total_usd == pytest.approx(cost.draft_usd + cost.answer_usd)


def test_drafts_of_texts_are_free() -> None:
    free = {source.value: DraftCounts(50, 20) for source in Source if source is not Source.DRAFT_MODEL}
    assert outcome(timeline(free, forced=3), n_tokens=9).cost(PRICES).draft_usd == 0


def test_a_worked_example() -> None:
    first = timeline({"prediction": DraftCounts(10, 7), "ngram": DraftCounts(4, 0)}, forced=2)
    second = timeline({"prediction": DraftCounts(3, 3), "draft_model": DraftCounts(0, 0)})
    assert msgspec.to_builtins(usage(outcome(first, second)).completion_tokens_details) == {
        "reasoning_tokens": 0,
        "accepted_prediction_tokens": 10,
        "rejected_prediction_tokens": 3,
        "audio_tokens": 0,
        "speculation": {
            "drafted": 17,
            "accepted": 10,
            "wasted": 7,
            "forced": 2,
            "by_proposer": {
                "ngram": {"drafted": 4, "accepted": 0, "wasted": 4},
                "prediction": {"drafted": 13, "accepted": 10, "wasted": 3},
            },
        },
    }
