"""The core's promises to single requests: handles, cancellation, deadlines, refusals, faults, fair turns."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core import EngineCore
from engine.guarded_matcher import GuardedMatcher
from engine.messages import (
    Cancel,
    Command,
    Compile,
    Compiled,
    Failed,
    Finished,
    GetStats,
    Prepare,
    Release,
    Shutdown,
    Stats,
    Submit,
)
from engine.request import FinishReason, SamplingParams
from grammars import Choice, JsonSchema
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, instance_of, is_idle, run, submit
from tests.engine.saboteur import Saboteur

PROMPT = [(i * 53 + 7) % 480 + 8 for i in range(45)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core")
    build_checkpoint(folder, seed=2)
    return folder


def core_of(folder: Path, **options: Any) -> EngineCore:
    limits = {
        key: options.pop(key)
        for key in list(options)
        if key not in ("forced_tokens", "prefix_cache", "max_hold_s", "overlap_depth")
    }
    return build_core(engine_config(folder, **limits), **options)


def continue_handle(handle: str, each: Submit) -> Submit:
    return Submit(id=each.id, model=each.model, params=each.params, handle=handle, constraint=each.constraint)


# Prepared requests


@pytest.mark.parametrize("constraint", [None, Choice(("alpha beta", "alpha gamma"))])
def test_a_continued_prefill_answers_the_same_and_computes_none_of_its_prompt_again(
    folder: Path, constraint: Choice | None
) -> None:
    asked = submit("s", PROMPT, max_tokens=12, temperature=0.9, seed=6, constraint=constraint)
    [expected] = run(core_of(folder, prefix_cache=False), asked)
    core = core_of(folder, prefix_cache=False)
    prepared = drive(core, [(0, Prepare("h", MODEL, PROMPT))])["h"].prepared
    before = instance_of(core).counters.snapshot()
    seen = drive(core, [(0, continue_handle(prepared.handle, asked))])["s"]
    after = instance_of(core).counters.snapshot()
    assert seen.finished.token_ids == expected.finished.token_ids
    assert before["prompt_tokens_computed"] == after["prompt_tokens_computed"] == len(PROMPT)
    assert after["tokens_recomputed"] == after["prompt_tokens_cached"] == 0
    assert seen.finished.timeline.computed_tokens == prepared.computed_tokens == len(PROMPT)
    assert is_idle(core)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    length=st.integers(1, 45),
    warm=st.integers(0, 45),
    budget=st.integers(1, 50),
    block_size=st.sampled_from([1, 4, 8]),
    turn=st.integers(0, 44),
)
def test_a_prepared_state_is_the_same_warm_and_cold(
    folder: Path, length: int, warm: int, budget: int, block_size: int, turn: int
) -> None:
    def state(core: EngineCore, name: str) -> tuple[torch.Tensor, float, float]:
        command = Prepare(name, MODEL, PROMPT[:length], turn_start=turn % length)
        prepared = drive(core, [(0, command)])[name].prepared
        values = torch.frombuffer(bytearray(prepared.state), dtype=torch.float32).reshape(prepared.state_shape)
        assert prepared.cached_tokens + prepared.computed_tokens == prepared.prompt_tokens == length
        return values, prepared.entropy, prepared.margin

    cold = state(core_of(folder, block_size=block_size), "cold")
    core = core_of(folder, block_size=block_size, token_budget=budget, max_rows=1)
    if warm:
        drive(core, [(0, Prepare("before", MODEL, PROMPT[:warm])), (40, Release("before"))])
    hot = state(core, "hot")
    torch.testing.assert_close(hot[0], cold[0], atol=1e-4, rtol=1e-4)
    assert hot[1:] == pytest.approx(cold[1:], abs=1e-3)
    assert cold[0].shape[1:] == (2, 64)
    assert 0 < cold[1] < math.log(512)


def test_a_hold_that_memory_took_away_is_computed_again_unseen(folder: Path) -> None:
    asked = submit("s", PROMPT, max_tokens=5, ignore_eos=True)
    [expected] = run(core_of(folder), asked)
    core = core_of(folder, n_blocks=7, prefix_cache=False)
    drive(core, [(0, Prepare("h", MODEL, PROMPT))])
    run(core, submit("other", PROMPT[::-1], max_tokens=3))
    assert instance_of(core).counters.holds_released == 1
    seen = drive(core, [(0, continue_handle("h", asked))])["s"]
    assert seen.finished.token_ids == expected.finished.token_ids
    assert seen.finished.timeline.recomputed_tokens == len(PROMPT)
    assert is_idle(core)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_released_handle_leaves_nothing_behind(folder: Path, at: int) -> None:
    core = core_of(folder, token_budget=20, max_rows=4)  # a prefill of three steps
    drive(core, [(0, Prepare("h", MODEL, PROMPT)), (at, Release("h")), (9, Release("unknown"))])
    assert is_idle(core)
    seen = drive(core, [(0, continue_handle("h", submit("s", PROMPT)))])
    assert seen["s"].failed.code == "unknown_handle"


def test_a_hold_that_nobody_submits_ends_by_itself(folder: Path) -> None:
    core = core_of(folder, max_hold_s=0.0)
    drive(core, [(0, Prepare("h", MODEL, PROMPT))])
    core.wait(5.0)
    core.step()
    assert is_idle(core)
    assert drive(core, [(0, continue_handle("h", submit("s", PROMPT)))])["s"].failed.code == "unknown_handle"


def test_a_submit_that_is_refused_frees_its_handle(folder: Path) -> None:
    core = core_of(folder)
    refused = submit("s", PROMPT, constraint=JsonSchema({"type": "object", "$ref": "http://elsewhere/schema"}))
    drive(core, [(0, Prepare("h", MODEL, PROMPT))])
    failed = drive(core, [(0, continue_handle("h", refused))])["s"].failed
    assert failed.code == "constraint_refused"
    assert (failed.keyword, failed.pointer) == ("$ref", "/$ref") or failed.keyword == "$ref"
    assert is_idle(core)


# Ends


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    commands=st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(0, 3),
            st.booleans(),
            st.sampled_from([None, Choice(("one", "two"))]),
            st.none() | st.integers(0, 12),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_every_submit_ends_once_and_leaves_nothing_whenever_it_is_cancelled(
    folder: Path, commands: list[tuple[int, int, bool, Choice | None, int | None]]
) -> None:
    core = core_of(folder, n_blocks=14, token_budget=16, max_rows=3)
    arrivals: list[tuple[int, Command]] = []
    for i, (at, cut, holds, constraint, cancel_after) in enumerate(commands):
        asked = submit(f"s{i}", PROMPT[cut : 30 + cut], max_tokens=10, constraint=constraint, temperature=1.0)
        if holds:
            arrivals.append((at, Prepare(f"h{i}", MODEL, PROMPT[cut : 30 + cut])))
            arrivals.append((at + 8, continue_handle(f"h{i}", asked)))
        else:
            arrivals.append((at, asked))
        if cancel_after is not None:
            arrivals.append((at + 8 * holds + cancel_after, Cancel(f"s{i}")))
    seen = drive(core, arrivals)
    for i, (*_, cancel_after) in enumerate(commands):
        ends = [event for event in seen[f"s{i}"].events if isinstance(event, Finished | Failed)]
        assert len(ends) == 1
        assert ends[0] is seen[f"s{i}"].events[-1]
        finished = seen[f"s{i}"].finished
        assert "".join(delta.text for delta in seen[f"s{i}"].deltas) == finished.text
        assert [token for delta in seen[f"s{i}"].deltas for token in delta.token_ids] == finished.token_ids
        assert finished.reason is not FinishReason.CANCELLED or cancel_after is not None
    assert is_idle(core)


def test_a_cancelled_request_frees_its_blocks_within_the_next_step(folder: Path) -> None:
    core = core_of(folder)
    core.post(submit("s", PROMPT, max_tokens=400, ignore_eos=True))
    for _ in range(5):
        core.step()
    assert instance_of(core).scheduler.pool.n_used > 0
    core.post(Cancel("s"))
    [*_, finished] = core.step()
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.CANCELLED
    assert len(finished.token_ids) == 5
    assert is_idle(core)


def test_a_cancel_while_the_constraint_compiles_frees_the_handle(folder: Path) -> None:
    core = core_of(folder)
    drive(core, [(0, Prepare("h", MODEL, PROMPT))])
    asked = submit("s", PROMPT, constraint=Choice(("compiles", "slowly")))
    seen = drive(core, [(0, continue_handle("h", asked)), (0, Cancel("s"))])["s"]
    assert seen.finished.reason is FinishReason.CANCELLED
    assert len(seen.events) == 1
    assert is_idle(core)


def test_a_deadline_ends_a_request_with_what_it_has(folder: Path) -> None:
    core = core_of(folder)
    core.post(Submit(id="s", model=MODEL, params=SamplingParams(ignore_eos=True), tokens=PROMPT, deadline_s=30.0))
    core.step()
    core.step()
    instance_of(core).scheduler.set_deadline(next(instance_of(core).scheduler.requests()), 0.0)
    [finished] = [event for event in core.step() if isinstance(event, Finished)]
    assert finished.reason is FinishReason.DEADLINE
    assert len(finished.token_ids) == 2
    assert is_idle(core)


def test_a_shutdown_refuses_new_requests_and_waits_for_running_ones(folder: Path) -> None:
    core = core_of(folder)
    seen = drive(
        core, [(0, submit("a", PROMPT, max_tokens=6, ignore_eos=True)), (2, Shutdown(60.0)), (3, submit("b", PROMPT))]
    )
    assert len(seen["a"].finished.token_ids) == 6
    assert seen["b"].failed.code == "shutting_down"
    assert core.is_over


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (submit("x", []), "empty_prompt"),
        (submit("x", [512]), "bad_token"),
        (submit("x", [-1]), "bad_token"),
        (submit("x", [1], logit_bias={600: 1.0}), "bad_token"),
        (submit("x", [1] * 512), "too_long"),
        (submit("x", [1], model="huge"), "unknown_model"),
        (Submit(id="x", model=MODEL, params=SamplingParams()), "bad_submit"),
        (Prepare("x", MODEL, [1] * 600), "too_long"),
        (Prepare("x", MODEL, [1, 2], turn_start=2), "bad_turn_start"),
        (Prepare("x", MODEL, [1, 2], turn_start=-1), "bad_turn_start"),
        (Compile("x", "huge", Choice(("a",))), "unknown_model"),
        (Submit(id="x", model=MODEL, params=SamplingParams(), handle="nowhere"), "unknown_handle"),
    ],
)
def test_what_can_never_run_is_refused_by_name(folder: Path, command: Command, code: str) -> None:
    core = core_of(folder)
    seen = drive(core, [(0, command)])["x"]
    assert (seen.failed.code, seen.failed.is_refusal, seen.failed.retry_after_s) == (code, True, None)
    assert is_idle(core)


def test_a_full_queue_says_when_to_come_back(folder: Path) -> None:
    core = core_of(folder, max_waiting_requests=2, max_rows=1)
    seen = drive(core, [(0, submit(f"s{i}", PROMPT, max_tokens=2)) for i in range(4)])
    codes = [seen[f"s{i}"].events[-1] for i in range(4)]
    assert [type(event).__name__ for event in codes] == ["Finished", "Finished", "Failed", "Failed"]
    assert seen["s3"].failed.code == "overloaded"
    assert (seen["s3"].failed.retry_after_s or 0) > 0
    assert instance_of(core).counters.refused == 2


def test_a_deadline_that_the_queue_alone_would_break_is_refused_at_once(folder: Path) -> None:
    core = core_of(folder, max_rows=1)
    core.post(submit("first", PROMPT * 4, max_tokens=2))
    core.post(Submit(id="s", model=MODEL, params=SamplingParams(), tokens=PROMPT, deadline_s=1e-9))
    failed = next(event for event in core.step() if isinstance(event, Failed))
    assert (failed.id, failed.code) == ("s", "overloaded")


# Constraints


@pytest.mark.parametrize("overlap_depth", [0, 1])
@pytest.mark.parametrize("at", range(0, 40, 3))
def test_a_matcher_that_raises_ends_its_own_request_and_no_other(
    folder: Path, at: int, overlap_depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraint = JsonSchema({"enum": ["red apple", "green apple", "blue plum"]})
    others = [
        submit("free", PROMPT, max_tokens=12, temperature=1.0, seed=1, ignore_eos=True),
        submit("bound", PROMPT[3:], temperature=1.0, seed=2, constraint=constraint),
    ]
    expected = [seen.finished.token_ids for seen in run(core_of(folder), *others)]
    victim = submit("victim", PROMPT[5:], temperature=1.0, seed=3, constraint=constraint)
    calls, build = itertools.count(), GuardedMatcher.__init__

    def sabotage(self: GuardedMatcher, matcher: Any, *args: Any) -> None:
        sabotaged.append(matcher)
        build(self, Saboteur(matcher, calls, at) if len(sabotaged) == 1 else matcher, *args)

    sabotaged: list[Any] = []
    monkeypatch.setattr(GuardedMatcher, "__init__", sabotage)
    core = core_of(folder, overlap_depth=overlap_depth)
    seen = drive(core, [(0, victim), (2, others[0]), (3, others[1])])
    assert [seen[other.id].finished.token_ids for other in others] == expected
    [*_, end] = seen["victim"].events
    if next(calls) > at:
        assert isinstance(end, Failed)
        assert end.code == "grammar_fault"
        assert "sabotage" in end.message
    else:
        assert isinstance(end, Finished)
    assert is_idle(core)


def test_a_whole_answer_that_is_forced_needs_no_step(folder: Path) -> None:
    core = core_of(folder)
    answer = "ÞΩЖ"  # spelt byte by byte: there is one way to write it
    [seen] = run(core, submit("s", PROMPT, constraint=Choice((answer,))))
    assert seen.finished.text == answer
    assert seen.finished.reason is FinishReason.STOP
    assert seen.finished.is_complete
    assert instance_of(core).counters.steps == 0
    assert is_idle(core)


@pytest.mark.parametrize("forced_tokens", [True, False])
def test_a_complete_answer_ends_without_its_end_token(folder: Path, forced_tokens: bool) -> None:
    core = core_of(folder, forced_tokens=forced_tokens)
    constraint = JsonSchema({"type": "boolean"})
    [seen] = run(core, submit("s", PROMPT, constraint=constraint, min_tokens=50, ignore_eos=True, logit_bias={2: -100}))
    assert seen.finished.text in ("true", "false")
    assert seen.finished.reason is FinishReason.STOP
    assert 2 not in seen.finished.token_ids


def test_compiling_is_answered_and_remembered(folder: Path) -> None:
    core = core_of(folder)
    constraint = JsonSchema({"type": "object", "properties": {"a": {"type": "string", "format": "made-up"}}})
    first = drive(core, [(0, Compile("1", MODEL, constraint))])["1"].events
    again = drive(core, [(0, Compile("2", MODEL, constraint))])["2"].events
    assert [isinstance(event, Compiled) and event.cached for event in (*first, *again)] == [False, True]
    refused = drive(core, [(0, Compile("3", MODEL, JsonSchema({"type": "nonsense"})))])["3"].failed
    assert (refused.code, refused.keyword, refused.pointer) == ("constraint_refused", "type", "")
    counters = instance_of(core).counters
    assert (counters.compiled, counters.compile_refused) == (2, 1)


# Two models


def two_models(folder: Path) -> EngineCore:
    return build_core(engine_config(folder), engine_config(folder), names=("small", "large"))


def test_two_models_share_an_engine_and_no_pages(folder: Path) -> None:
    core = two_models(folder)
    asked = [submit(name, PROMPT, model=name, max_tokens=8, ignore_eos=True) for name in ("small", "large")]
    small, large = run(core, *asked)
    assert small.finished.token_ids == large.finished.token_ids
    stats = core.stats()
    assert [stats[name]["prompt_tokens_computed"] for name in ("small", "large")] == [len(PROMPT)] * 2
    assert [stats[name]["prompt_tokens_cached"] for name in ("small", "large")] == [0, 0]
    assert [info.name for info in core.info()] == ["small", "large"]


def test_a_saturated_large_model_leaves_the_small_one_its_turns(folder: Path) -> None:
    core = two_models(folder)
    for i in range(12):
        core.post(submit(f"large {i}", PROMPT, model="large", max_tokens=300, ignore_eos=True))
    for _ in range(10):
        core.step()
    core.post(submit("s", PROMPT, model="small", max_tokens=8, ignore_eos=True))
    steps = next(step for step in itertools.count(1) if any(isinstance(event, Finished) for event in core.step()))
    assert steps <= 20  # eight of its own, and seldom more than one of the large model's between two of them


def test_tenants_never_share_a_prefix(folder: Path) -> None:
    core = core_of(folder)
    for name, salt in (("a", "x"), ("b", "y"), ("c", "x")):
        drive(core, [(0, Submit(id=name, model=MODEL, params=SamplingParams(max_tokens=1), tokens=PROMPT, salt=salt))])
    stats = instance_of(core).stats()
    assert (stats["prefix_queries"], stats["prefix_hits"]) == (3, 1)
    assert stats["prompt_tokens_cached"] == len(PROMPT) // 8 * 8


def test_stats_are_numbers_that_only_grow_unless_named_now(folder: Path) -> None:
    core = core_of(folder)
    before = instance_of(core).stats()
    run(core, submit("s", PROMPT, max_tokens=3, ignore_eos=True))
    [answer] = drive(core, [(0, GetStats("q"))])["q"].events
    assert isinstance(answer, Stats)
    after = answer.models[MODEL]
    assert before.keys() == after.keys()
    assert all(isinstance(value, int | float) for value in after.values())
    assert all(after[name] >= before[name] for name in after if not name.endswith("_now"))
    assert (after["tokens_generated"], after["finished_length"], after["steps"]) == (3, 1, 3)


def test_each_answer_has_a_consistent_timeline(folder: Path) -> None:
    core = core_of(folder, n_blocks=12, token_budget=16, max_rows=4)
    seen = run(core, *[submit(f"s{i}", PROMPT[i:], max_tokens=9, ignore_eos=True) for i in range(5)])
    for each in seen:
        timeline = each.finished.timeline
        times = [timeline.arrived_s, timeline.admitted_s, *timeline.token_times_s, timeline.finished_s]
        assert times == sorted(times)
        assert timeline.first_token_s == timeline.token_times_s[0]
        assert len(timeline.token_times_s) == len(each.finished.token_ids)
        assert timeline.prompt_tokens == timeline.cached_tokens + timeline.computed_tokens
        assert timeline.recomputed_tokens == 0 or timeline.preemptions > 0


def test_a_seedless_draw_differs_from_one_submit_to_the_next(folder: Path) -> None:
    asked: Callable[[int], Submit] = lambda i: submit(f"s{i}", PROMPT, max_tokens=12, temperature=3.0, ignore_eos=True)  # noqa: E731
    seen: list[Seen] = run(core_of(folder), *[asked(i) for i in range(3)])
    assert len({tuple(each.finished.token_ids) for each in seen}) == 3
