"""The law: an answer is a function of model, prompt, parameters and seed, whatever the schedule.

In invariant mode the logits themselves are the same bits; without it rounding may move them, and tests/engine/
test_rounding.py says how often that could matter.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import DtypeName, EngineConfig, Quantization
from engine.messages import Submit
from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import DraftTree, Situation, Source
from kernels.native.kernels import library_for
from tests.engine.answers import SUBMITS, assert_same, assert_same_bits, renamed
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, instance_of, is_idle, run
from tests.engine.recorder import Recorder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("law")
    build_checkpoint(folder, seed=1)
    return folder


@dataclass(frozen=True)
class Mode:
    """How the model is run."""

    dtype: DtypeName = "float32"
    quantize: Quantization = "none"
    invariant: bool = False

    def config(self, folder: Path, **limits: Any) -> EngineConfig:
        config = engine_config(folder, **limits)
        return replace(config, dtype=self.dtype, quantize=self.quantize, invariant=self.invariant)


DEFAULT = Mode()
MODES = {
    "default": DEFAULT,
    "invariant float32": Mode(invariant=True),
    "invariant bfloat16": Mode("bfloat16", invariant=True),
    "invariant int8": Mode("bfloat16", "w8a8", invariant=True),
}
if library_for(torch.bfloat16) is not None:  # four bits are multiplied in C only
    MODES["invariant int4"] = Mode("bfloat16", "int4", invariant=True)


@dataclass(frozen=True)
class Alone:
    """An answer by itself, and the logits that it was drawn from, by position."""

    seen: Seen
    logits: dict[int, torch.Tensor]


class References:
    """Each answer by itself, with nothing shared, nothing forced and one chunk for the whole prompt; by mode."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[Mode, dict[str, Alone]] = {}

    def of(self, mode: Mode) -> dict[str, Alone]:
        if mode not in self._found:
            core = build_core(mode.config(self._folder), prefix_cache=False, forced_tokens=False)
            recorder = Recorder(core)
            self._found[mode] = {each.id: Alone(run(core, each)[0], recorder.of(each.id)) for each in SUBMITS}
        return self._found[mode]


@pytest.fixture(scope="module")
def references(folder: Path) -> References:
    return References(folder)


@pytest.fixture(scope="module")
def alone(references: References) -> dict[str, Seen]:
    return {name: reference.seen for name, reference in references.of(DEFAULT).items()}


def test_the_reference_answers_are_worth_comparing(alone: dict[str, Seen]) -> None:
    answers = [tuple(seen.finished.token_ids) for seen in alone.values()]
    assert len(set(answers)) == len(answers)
    assert {seen.finished.reason.value for seen in alone.values()} == {"stop", "length"}
    assert isinstance(alone["stopped"].finished.stop_match, str)
    assert [name for name, seen in alone.items() if not seen.finished.is_complete] == ["json cut off"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(sorted(MODES)).map(MODES.__getitem__),
    block_size=st.sampled_from([1, 3, 8, 16, 32]),
    capacity=st.integers(96, 320),
    budget=st.integers(1, 80),
    rows=st.integers(1, 12),
    cap=st.none() | st.integers(1, 30),
    prefix_cache=st.booleans(),
    forced_tokens=st.booleans(),
    overlap_depth=st.integers(0, 1),
    arrivals=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(SUBMITS)), min_size=1, max_size=16),
)
def test_no_answer_depends_on_what_else_is_computed(
    folder: Path,
    references: References,
    mode: Mode,
    block_size: int,
    capacity: int,
    budget: int,
    rows: int,
    cap: int | None,
    prefix_cache: bool,
    forced_tokens: bool,
    overlap_depth: int,
    arrivals: list[tuple[int, Submit]],
) -> None:
    """17: arrival order, company, chunks, block size, budget, cache, overlap; and each example is a new engine."""
    limits = {"token_budget": budget, "max_rows": rows, "prefill_cap": cap}
    config = mode.config(folder, block_size=block_size, n_blocks=capacity // block_size, **limits)
    core = build_core(config, prefix_cache=prefix_cache, forced_tokens=forced_tokens, overlap_depth=overlap_depth)
    recorder = Recorder(core)
    named = [(step, each, f"{i} {each.id}") for i, (step, each) in enumerate(arrivals)]
    seen = drive(core, [(step, renamed(each, name)) for step, each, name in named])
    for _, each, name in named:
        reference = references.of(mode)[each.id]
        assert_same(seen[name], reference.seen)
        if mode.invariant and recorder.of(name):  # without it the grammar may have forced the whole answer
            assert_same_bits(recorder.of(name), reference.logits)
    assert is_idle(core)


@pytest.mark.parametrize("name", MODES)
def test_chunks_preemption_and_a_warm_cache_change_nothing(folder: Path, references: References, name: str) -> None:
    """17, with each of these sure to happen."""
    mode = MODES[name]
    config = mode.config(folder, block_size=3, n_blocks=22, token_budget=16, max_rows=6, prefill_cap=5)
    core = build_core(replace(config, state_layers=()))  # no sums over whole blocks, so that blocks can be copied
    for lap in ("cold", "warm"):
        recorder = Recorder(core)
        asked = [renamed(each, f"{lap} {each.id}") for each in SUBMITS]
        for each, seen in zip(SUBMITS, run(core, *asked), strict=True):
            reference = references.of(mode)[each.id]
            assert_same(seen, reference.seen)
            if mode.invariant:
                assert_same_bits(recorder.of(f"{lap} {each.id}"), reference.logits)
    counters = instance_of(core).counters
    assert counters.preemptions > 2
    assert counters.prefix_hits > 10
    assert counters.tokens_copied > 0


class Guess:
    """Proposes the right continuation up to a random point, then junk: what a real draft model looks like."""

    source, wants_hidden = Source.HEADS, False

    def __init__(self, answers: dict[tuple[int, ...], list[int]], seed: int) -> None:
        self._answers, self._draw = answers, random.Random(seed)

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        prompt = tuple(situation.tokens[: situation.n_prompt])
        done = len(situation.tokens) + len(situation.drafted) - situation.n_prompt
        right = self._answers[prompt][done : done + self._draw.randrange(5)]
        junk = [self._draw.randrange(512) for _ in range(self._draw.randrange(3))]
        guessed = [*right, *junk][:budget]
        return DraftTree.chain(guessed, [0.5] * len(guessed), self.source)

    def forget(self, request_id: str) -> None:
        """Nothing is kept."""


def test_no_answer_depends_on_drafts(folder: Path, alone: dict[str, Seen]) -> None:
    answers = {tuple(each.tokens or ()): alone[each.id].finished.token_ids for each in SUBMITS}
    speculation = SpeculationConfig(sources=(), is_adaptive=False)
    drafted, accepted = [], []

    @settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**16), st.integers(96, 320), st.integers(4, 60), st.booleans())
    def law(seed: int, capacity: int, budget: int, forced: bool) -> None:
        config = engine_config(folder, n_blocks=capacity // 8, token_budget=budget)
        proposers = {MODEL: [Guess(answers, seed)]}
        core = build_core(config, proposers=proposers, speculation=speculation, forced_tokens=forced)
        for each, seen in zip(SUBMITS, run(core, *SUBMITS), strict=True):
            assert_same(seen, alone[each.id])
            assert seen.finished.timeline.accepted_tokens <= seen.finished.timeline.drafted_tokens
        counters = instance_of(core).counters
        drafted.append(counters.tokens_drafted)
        accepted.append(counters.tokens_accepted)
        assert is_idle(core)

    law()
    assert 0 < sum(accepted) < sum(drafted)  # a small budget alone may leave room for right guesses only


@pytest.mark.parametrize("name", ["json", "json greedy", "choice"])
def test_forced_tokens_save_forward_passes_and_change_nothing(folder: Path, alone: dict[str, Seen], name: str) -> None:
    core = build_core(engine_config(folder))
    [seen] = run(core, next(each for each in SUBMITS if each.id == name))
    assert_same(seen, alone[name])
    forced = seen.finished.timeline.forced_tokens
    assert forced > 0
    assert seen.finished.timeline.steps <= alone[name].finished.timeline.steps - forced + 1
