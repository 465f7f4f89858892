"""The law of speculation: whoever drafts, an answer is the one that nobody drafted for.

Trees are verified beside other rows, so the logits are compared in invariant mode, where they are the same bits.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core import EngineCore
from engine.messages import Cancel, Command, Prepare, Submit
from engine.request import FinishReason
from engine.speculation.config import SpeculationConfig, Verification
from engine.speculation.proposer import Source
from tests.engine.answers import assert_same, assert_same_bits, renamed
from tests.engine.checkpoints import build_checkpoint
from tests.engine.drafted import (
    ALL,
    ASKED,
    DRAFTERS,
    SMALL,
    Checkpoints,
    Verdicts,
    build_checkpoints,
    config_of,
    drafted_core,
)
from tests.engine.harness import MODEL, Seen, build_core, drive, instance_of, is_idle, run, submit
from tests.engine.recorder import Recorder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return build_checkpoints(tmp_path_factory.mktemp("speculation"))


class Plain:
    """An answer that nobody drafted for, alone, and the logits that it was drawn from by position. No dataclass:
    hypothesis prints those with all that is in them."""

    def __init__(self, seen: Seen, logits: dict[int, torch.Tensor]) -> None:
        self.seen, self.logits = seen, logits

    @property
    def tokens(self) -> list[int]:
        return self.seen.finished.token_ids


@pytest.fixture(scope="module")
def plain(folders: Checkpoints) -> dict[str, Plain]:
    core = build_core(config_of(folders.target), prefix_cache=False, forced_tokens=False)
    recorder = Recorder(core)
    return {each.id: Plain(run(core, each)[0], recorder.of(each.id)) for each in ASKED}


def predicted(kind: str, each: Submit, plain: Mapping[str, Plain], seed: int = 0) -> list[int]:
    """What somebody expects as an answer, right or wrong."""
    draw, right = random.Random(f"{seed} {each.id}"), plain[each.id].tokens
    if kind == "right":
        return right
    if kind == "mutilated":
        return [draw.randrange(4, 480) if draw.random() < 0.15 else token for token in right if draw.random() > 0.1]
    if kind == "another's":
        return plain[draw.choice(sorted(plain))].tokens
    return [draw.randrange(512) for _ in range(draw.randrange(30))] if kind == "junk" else []


PREDICTIONS = ("right", "mutilated", "another's", "junk", "none")


def check(
    core: EngineCore,
    named: Sequence[tuple[str, Submit]],
    seen: Mapping[str, Seen],
    plain: Mapping[str, Plain],
    recorder: Recorder,
) -> None:
    """Every answer, and every logit that was computed for it."""
    for name, each in named:
        assert_same(seen[name], plain[each.id].seen)
        timeline = seen[name].finished.timeline
        counts = timeline.drafts.values()
        assert timeline.drafted_tokens == sum(count.drafted for count in counts)
        assert timeline.accepted_tokens == sum(count.accepted for count in counts) < max(1, len(plain[each.id].tokens))
        if recorder.of(name):  # else the grammar forced the whole answer
            assert_same_bits(recorder.of(name), plain[each.id].logits)
    counters = instance_of(core).counters
    assert counters.tokens_drafted == sum(seen[name].finished.timeline.drafted_tokens for name, _ in named)
    assert counters.tokens_accepted == sum(seen[name].finished.timeline.accepted_tokens for name, _ in named)
    assert is_idle(core)


EXAMPLES: dict[str, st.SearchStrategy[Any]] = {
    "sources": st.sampled_from([*((source,) for source in ALL), ALL, ALL, ALL]),
    "max_draft": st.sampled_from([1, 3, 8, 16]),
    "width": st.integers(1, 3),
    "drafter": st.sampled_from(DRAFTERS),
    "is_adaptive": st.booleans(),
    "block_size": st.sampled_from([1, 3, 8, 16]),
    "capacity": st.integers(110, 320),
    "small_capacity": st.integers(80, 320),
    "budget": st.integers(1, 80),
    "rows": st.integers(1, 12),
    "prefix_cache": st.booleans(),
    "forced_tokens": st.booleans(),
    "overlap_depth": st.integers(0, 1),
    "arrivals": st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(ASKED), st.sampled_from(PREDICTIONS)), min_size=1, max_size=12
    ),
    "small_arrivals": st.lists(st.tuples(st.integers(0, 30), st.sampled_from(ASKED)), max_size=3),
}


def check_an_example(
    folders: Checkpoints,
    plain: dict[str, Plain],
    *,
    sources: tuple[Source, ...],
    max_draft: int,
    width: int,
    drafter: str,
    is_adaptive: bool,
    block_size: int,
    capacity: int,
    small_capacity: int,
    budget: int,
    rows: int,
    prefix_cache: bool,
    forced_tokens: bool,
    overlap_depth: int,
    arrivals: list[tuple[int, Submit, str]],
    small_arrivals: list[tuple[int, Submit]],
) -> None:
    """Sources, length and shape of drafts, beside all that 17 varies. The drafter has requests of its own."""
    core = drafted_core(
        folders,
        SpeculationConfig(sources, max_draft=max_draft, width=width, is_adaptive=is_adaptive),
        drafter,
        {"block_size": block_size, "n_blocks": small_capacity // block_size},
        {"block_size": block_size, "n_blocks": capacity // block_size, "token_budget": budget, "max_rows": rows},
        prefix_cache=prefix_cache,
        forced_tokens=forced_tokens,
        overlap_depth=overlap_depth,
    )
    recorder, commands, named = Recorder(core), list[tuple[int, Command]](), list[tuple[str, Submit]]()
    for i, (step, each, kind) in enumerate(arrivals):
        named.append((f"{i} {each.id}", each))
        expected = predicted(kind, each, plain, i)
        commands.append((step, msgspec.structs.replace(renamed(each, named[-1][0]), prediction=expected)))
    for i, (step, each) in enumerate(small_arrivals):
        commands.append((step, msgspec.structs.replace(renamed(each, f"small {i}"), model=SMALL)))
    seen = drive(core, commands)
    check(core, named, seen, plain, recorder)
    core.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(example=st.fixed_dictionaries(EXAMPLES))
def test_no_answer_depends_on_who_drafts_for_it(
    folders: Checkpoints, plain: dict[str, Plain], example: dict[str, Any]
) -> None:
    """18"""
    check_an_example(folders, plain, **example)


@pytest.mark.full
@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
@given(example=st.fixed_dictionaries(EXAMPLES))
def test_no_answer_in_many_examples_depends_on_who_drafts_for_it(
    folders: Checkpoints, plain: dict[str, Plain], example: dict[str, Any]
) -> None:
    """18, at length."""
    check_an_example(folders, plain, **example)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("source", ALL)
def test_each_source_alone_is_of_use_and_changes_nothing(
    folders: Checkpoints, plain: dict[str, Plain], source: Source, width: int
) -> None:
    """18, with each of these sure to happen; trees are taken from their side branches, too."""
    core = drafted_core(folders, SpeculationConfig((source,), width=width, is_adaptive=False), forced_tokens=False)
    verdicts, recorder = Verdicts(core), Recorder(core)
    asked = [msgspec.structs.replace(each, prediction=predicted("mutilated", each, plain)) for each in ASKED]
    seen = {each.id: found for each, found in zip(asked, run(core, *asked), strict=True)}
    check(core, [(each.id, each) for each in ASKED], seen, plain, recorder)
    drafts = instance_of(core).counters.drafts
    assert drafts[source].accepted > 10
    assert not any(counts.drafted for name, counts in drafts.items() if name != source)
    if source is Source.DRAFT_MODEL and width > 1:
        assert any(verdict.path != tuple(range(len(verdict.path))) for verdict in verdicts.drafts)


@pytest.mark.parametrize("verification", ["coupled", "ratio"])
@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("width", [1, 3])
def test_greedy_answers_and_constraints_hold_with_any_drafter(
    folders: Checkpoints, plain: dict[str, Plain], drafter: str, verification: Verification, width: int
) -> None:
    """18 for what both forms of verification promise."""
    speculation = SpeculationConfig(
        (Source.DRAFT_MODEL,), max_draft=4, width=width, verification=verification, is_adaptive=False
    )
    core = drafted_core(folders, speculation, drafter)
    for each, seen in zip(ASKED, run(core, *ASKED), strict=True):
        if verification == "coupled" or each.params.temperature == 0:
            assert_same(seen, plain[each.id].seen)
        elif each.constraint is not None and each.params.max_tokens is None:
            assert seen.finished.is_complete
    assert instance_of(core).counters.drafts[Source.DRAFT_MODEL].drafted > 50
    assert is_idle(core)


@pytest.mark.parametrize("verification", ["coupled", "ratio"])
def test_a_target_that_drafts_for_itself_is_always_right(
    folders: Checkpoints, plain: dict[str, Plain], verification: Verification
) -> None:
    """21: at any temperature, under masks, penalties and filters."""
    speculation = SpeculationConfig(
        (Source.DRAFT_MODEL,), max_draft=8, width=1, verification=verification, is_adaptive=False
    )
    core = drafted_core(folders, speculation, "same")
    verdicts = Verdicts(core)
    for each, seen in zip(ASKED, run(core, *ASKED), strict=True):
        if verification == "coupled" or each.params.temperature == 0:
            assert_same(seen, plain[each.id].seen)
    assert sum(len(verdict.tokens) for verdict in verdicts.drafts) > 100
    for verdict in verdicts.drafts:
        assert verdict.is_over or verdict.path == tuple(range(len(verdict.tokens))), verdict
    assert is_idle(core)


@pytest.mark.parametrize("overlap_depth", [0, 1])
def test_preemption_and_a_drafter_without_room_change_nothing(
    folders: Checkpoints, plain: dict[str, Plain], overlap_depth: int
) -> None:
    """18 where the target has to preempt, and the drafter's own requests take the pages of what it drafts for."""
    core = drafted_core(
        folders,
        SpeculationConfig(is_adaptive=False, max_draft=6),
        "near",
        {"block_size": 3, "n_blocks": 24},
        {"block_size": 3, "n_blocks": 45, "token_budget": 24, "max_rows": 8, "prefill_cap": 9},
        overlap_depth=overlap_depth,
    )
    recorder, guests, taken = Recorder(core), instance_of(core, SMALL).scheduler.guests, list[bool]()
    reclaim = guests.reclaim

    def spied(*given: Any) -> bool:
        taken.append(reclaim(*given))
        return taken[-1]

    guests.reclaim = spied  # type: ignore[method-assign]
    of_small = [msgspec.structs.replace(renamed(each, f"small {each.id}"), model=SMALL) for each in ASKED]
    arrivals = [(3 * i, each) for i, each in enumerate(ASKED)] + [(10 * i, each) for i, each in enumerate(of_small)]
    seen = drive(core, arrivals)
    check(core, [(each.id, each) for each in ASKED], seen, plain, recorder)
    assert instance_of(core).counters.preemptions > 0
    assert taken.count(True) > 1


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**16),
    overlap_depth=st.integers(0, 1),
    commands=st.lists(
        st.tuples(
            st.integers(0, 8),
            st.sampled_from(ASKED),
            st.booleans(),
            st.none() | st.integers(0, 8),
            st.none() | st.integers(0, 12),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_whoever_is_cancelled_or_late_amid_drafts_has_the_beginning_of_the_same_answer(
    folders: Checkpoints,
    plain: dict[str, Plain],
    seed: int,
    overlap_depth: int,
    commands: list[tuple[int, Submit, bool, int | None, int | None]],
) -> None:
    core = drafted_core(
        folders,
        SpeculationConfig(is_adaptive=False, max_draft=5),
        "same",
        {"n_blocks": 16},
        {"n_blocks": 24, "token_budget": 40, "max_rows": 4},
        overlap_depth=overlap_depth,
    )
    arrivals, late = list[tuple[int, Command]](), dict[int, list[str]]()
    for i, (at, each, holds, cancel_after, late_after) in enumerate(commands):
        expected = predicted("mutilated", each, plain, seed)
        asked = msgspec.structs.replace(renamed(each, f"s{i}"), prediction=expected)
        if holds:
            arrivals.append((at, Prepare(f"h{i}", MODEL, each.tokens or [])))
            at += 6
            asked = msgspec.structs.replace(asked, tokens=None, handle=f"h{i}")
        arrivals.append((at, asked))
        if cancel_after is not None:
            arrivals.append((at + cancel_after, Cancel(f"s{i}")))
        if late_after is not None:
            late.setdefault(at + late_after, []).append(f"s{i}")

    def before_step(step: int) -> None:
        for name in late.get(step, []):
            if generation := instance_of(core)._live.by_submit.get(name):
                instance_of(core).scheduler.set_deadline(generation.request, 0.0)

    seen = drive(core, arrivals, before_step)
    for i, (_, each, _, _, _) in enumerate(commands):
        finished = seen[f"s{i}"].finished
        assert [token for delta in seen[f"s{i}"].deltas for token in delta.token_ids] == finished.token_ids
        assert finished.token_ids == plain[each.id].tokens[: len(finished.token_ids)]
        if finished.reason not in (FinishReason.CANCELLED, FinishReason.DEADLINE):
            assert_same(seen[f"s{i}"], plain[each.id].seen)
    assert is_idle(core)


def test_a_draft_may_cross_from_thoughts_into_json(folders: Checkpoints, plain: dict[str, Plain]) -> None:
    """25: the constraint changes inside a draft, which is verified on both sides of that place in one step."""
    [each] = [each for each in ASKED if each.id == "thought"]
    core = drafted_core(folders, SpeculationConfig(is_adaptive=False), "same", forced_tokens=False)
    verdicts = Verdicts(core)
    [seen] = run(core, each)
    assert_same(seen, plain[each.id].seen)
    decode = instance_of(core)._tokenizer.token_bytes
    texts = [b"".join(decode(verdict.tokens[node]) for node in verdict.path) for verdict in verdicts.drafts]
    crossing = [text for text in texts if b"</t>" in text]
    assert crossing, f"no draft crossed the end of the thoughts: {texts}"
    before, after = crossing[0].split(b"</t>")
    assert before
    assert after.startswith(b"{")


@pytest.mark.parametrize("width", [1, 3])
def test_the_cache_that_a_drafted_answer_leaves_is_that_of_a_plain_one(
    folders: Checkpoints, plain: dict[str, Plain], width: int
) -> None:
    """22: whoever goes on from it gets the same bits."""
    core = drafted_core(
        folders,
        SpeculationConfig(is_adaptive=False, width=width),
        "near",
        limits={"block_size": 3, "n_blocks": 1500},
        forced_tokens=False,
    )
    run(core, *ASKED)
    turns = [
        renamed(submit("", [*(each.tokens or []), *plain[each.id].tokens, 9, 10, 11], max_tokens=6), f"turn {each.id}")
        for each in ASKED
    ]
    fresh = build_core(config_of(folders.target), prefix_cache=False)
    found, expected = Recorder(core), Recorder(fresh)
    warm, cold = run(core, *turns), run(fresh, *turns)
    for each, turn, one, other in zip(ASKED, turns, warm, cold, strict=True):
        assert_same(one, other)
        assert_same_bits(found.of(turn.id), expected.of(turn.id))
        n_all = len(each.tokens or []) + len(plain[each.id].tokens)
        assert one.finished.timeline.cached_tokens >= (n_all - 1) // 3 * 3, "all but the last token was computed"
    assert is_idle(core)


@pytest.mark.parametrize("is_itself", [True, False])
def test_layers_with_windows_are_drafted_for_and_draft(tmp_path: Path, is_itself: bool) -> None:
    """18 and 21 with several KV groups, on both sides, and pages behind windows that are given back. is_itself: the
    target drafts for itself, in chains; else a part of it, beside all other sources."""
    build_checkpoint(tmp_path / MODEL, "gemma2", seed=2, sliding_window=8, num_hidden_layers=4)
    build_checkpoint(tmp_path / SMALL, "gemma2", seed=2, sliding_window=8, num_hidden_layers=2)
    fresh = build_core(config_of(tmp_path / MODEL), prefix_cache=False, forced_tokens=False)
    expected = {each.id: run(fresh, each)[0] for each in ASKED}
    core = build_core(
        config_of(tmp_path / MODEL, block_size=3, n_blocks=150),
        config_of(tmp_path / (MODEL if is_itself else SMALL), block_size=3, n_blocks=300 if is_itself else 120),
        names=(MODEL, SMALL),
        speculation=SpeculationConfig(
            (Source.DRAFT_MODEL,) if is_itself else ALL,
            is_adaptive=False,
            max_draft=6,
            width=1 if is_itself else 2,
            drafters={MODEL: SMALL},
        ),
        overlap_depth=0 if is_itself else 1,
    )
    verdicts = Verdicts(core)
    for _ in ("cold", "warm"):
        for each, seen in zip(ASKED, run(core, *ASKED), strict=True):
            assert_same(seen, expected[each.id])
    assert sum(len(verdict.path) for verdict in verdicts.drafts) > 20
    if is_itself:
        assert all(verdict.is_over or len(verdict.path) == len(verdict.tokens) for verdict in verdicts.drafts)
    assert is_idle(core)
