"""The law: an answer is a function of model, prompt, parameters and seed, whatever the schedule."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.messages import Submit
from engine.request import Request
from engine.speculation.proposer import DraftTree
from grammars import Choice, JsonSchema, Regex
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, instance_of, is_idle, run, submit

SHARED = [(i * 37 + 11) % 480 + 8 for i in range(40)]
SCHEMA = JsonSchema(
    {
        "type": "object",
        "properties": {"name": {"enum": ["anna", "bob"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "count"],
        "additionalProperties": False,
    }
)
SUBMITS = [
    submit("greedy", [5, 6, 7], max_tokens=20, ignore_eos=True),
    submit("shared", SHARED, max_tokens=12, ignore_eos=True),
    submit("shared longer", [*SHARED, 9, 10, 11], max_tokens=16, temperature=0.9, seed=3),
    submit("shared in part", [*SHARED[:17], 99], max_tokens=9, temperature=1.3, seed=-4, top_p=0.8, logprobs=3),
    submit("same, other seed", [5, 6, 7], max_tokens=20, temperature=1.0, seed=8, top_k=20),
    submit("penalised", [5, 6, 7, 8], max_tokens=24, repetition_penalty=1.4, frequency_penalty=0.6, ignore_eos=True),
    submit("stopped", SHARED[:9], max_tokens=30, temperature=1.5, seed=5, stop=("e", "a"), min_tokens=6),
    submit("json", SHARED[:21], max_tokens=40, temperature=1.0, seed=2, constraint=SCHEMA, logprobs=0),
    submit("json greedy", [7, 7, 7], max_tokens=40, constraint=SCHEMA),
    submit("json cut off", [8, 7, 7], max_tokens=7, temperature=1.0, seed=1, constraint=SCHEMA),
    submit("choice", [4, 5], constraint=Choice(("hello world", "hello there")), temperature=2.0, seed=9),
    submit("regex", SHARED[5:30], max_tokens=14, constraint=Regex("(ab|cd){3,8}"), temperature=1.0, seed=4),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("law")
    build_checkpoint(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Seen]:
    """Each answer by itself, with nothing shared, nothing forced and one chunk for the whole prompt."""
    core = build_core(engine_config(folder), prefix_cache=False, forced_tokens=False)
    return {each.id: run(core, each)[0] for each in SUBMITS}


def assert_same(seen: Seen, reference: Seen) -> None:
    one, other = seen.finished, reference.finished
    assert (one.token_ids, one.text, one.reason) == (other.token_ids, other.text, other.reason)
    assert (one.stop_match, one.is_complete) == (other.stop_match, other.is_complete)
    assert [entry.token_id for entry in seen.logprobs] == [entry.token_id for entry in reference.logprobs]
    for mine, theirs in zip(seen.logprobs, reference.logprobs, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert [token for token, _ in mine.top] == [token for token, _ in theirs.top]


def test_the_reference_answers_are_worth_comparing(alone: dict[str, Seen]) -> None:
    answers = [tuple(seen.finished.token_ids) for seen in alone.values()]
    assert len(set(answers)) == len(answers)
    assert {seen.finished.reason.value for seen in alone.values()} == {"stop", "length"}
    assert isinstance(alone["stopped"].finished.stop_match, str)
    assert [name for name, seen in alone.items() if not seen.finished.is_complete] == ["json cut off"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
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
    alone: dict[str, Seen],
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
    config = engine_config(
        folder,
        block_size=block_size,
        n_blocks=capacity // block_size,
        token_budget=budget,
        max_rows=rows,
        prefill_cap=cap,
    )
    core = build_core(config, prefix_cache=prefix_cache, forced_tokens=forced_tokens, overlap_depth=overlap_depth)
    named = [(step, each, f"{i} {each.id}") for i, (step, each) in enumerate(arrivals)]
    seen = drive(core, [(step, renamed(each, name)) for step, each, name in named])
    for _, each, name in named:
        assert_same(seen[name], alone[each.id])
    assert is_idle(core)


class Draft:
    """Proposes the right continuation up to a random point, then junk: what a real draft model looks like."""

    def __init__(self, answers: dict[tuple[int, ...], list[int]], seed: int) -> None:
        self._answers, self._draw = answers, random.Random(seed)

    def propose(self, request: Request, budget: int) -> DraftTree:
        prompt = tuple(request.tokens[: request.n_prompt])
        done = len(request.tokens) - request.n_prompt
        right = self._answers[prompt][done : done + self._draw.randrange(5)]
        junk = [self._draw.randrange(512) for _ in range(self._draw.randrange(3))]
        return DraftTree.chain(tuple([*right, *junk][:budget]))


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**16), capacity=st.integers(96, 320), budget=st.integers(4, 60), forced=st.booleans())
def test_no_answer_depends_on_drafts(
    folder: Path, alone: dict[str, Seen], seed: int, capacity: int, budget: int, forced: bool
) -> None:
    answers = {tuple(each.tokens or ()): alone[each.id].finished.token_ids for each in SUBMITS}
    config = engine_config(folder, n_blocks=capacity // 8, token_budget=budget)
    core = build_core(config, proposers={MODEL: Draft(answers, seed)}, forced_tokens=forced)
    for each, seen in zip(SUBMITS, run(core, *SUBMITS), strict=True):
        assert_same(seen, alone[each.id])
        assert seen.finished.timeline.accepted_tokens <= seen.finished.timeline.drafted_tokens
    counters = instance_of(core).counters
    assert 0 < counters.tokens_accepted < counters.tokens_drafted
    assert is_idle(core)


@pytest.mark.parametrize("name", ["json", "json greedy", "choice"])
def test_forced_tokens_save_forward_passes_and_change_nothing(folder: Path, alone: dict[str, Seen], name: str) -> None:
    core = build_core(engine_config(folder))
    [seen] = run(core, next(each for each in SUBMITS if each.id == name))
    assert_same(seen, alone[name])
    forced = seen.finished.timeline.forced_tokens
    assert forced > 0
    assert seen.finished.timeline.steps <= alone[name].finished.timeline.steps - forced + 1


def renamed(each: Submit, name: str) -> Submit:
    return Submit(id=name, model=each.model, params=each.params, tokens=each.tokens, constraint=each.constraint)
