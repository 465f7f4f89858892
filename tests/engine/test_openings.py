"""Answers that begin with the prefill they go on from say what they would have said, and are forgotten if they do
not go on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.client import EngineClient
from engine.core import EngineCore
from engine.messages import Command, Delta, Finished, Prepare, Release, Submit
from engine.pair_config import PairConfig
from engine.request import SamplingParams
from grammars import Choice
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, Seen, build_core, drive, engine_config, instance_of, is_idle, run, submit

PROMPT = [(i * 53 + 7) % 480 + 8 for i in range(45)]
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 14, "ignore_eos": True},
    "one token": {"max_tokens": 1},
    "drawn": {"max_tokens": 17, "temperature": 1.2, "seed": 3, "logprobs": 2, "frequency_penalty": 0.5},
    "stopped": {"max_tokens": 40, "temperature": 1.5, "seed": 5, "stop": ("e", "a"), "min_tokens": 4},
    "stopped at once": {"max_tokens": 40, "temperature": 1.5, "seed": 5, "stop_token_ids": tuple(range(512))},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openings")
    build_checkpoint(folder, seed=1)
    return folder


def core_of(folder: Path, *, depth: int = 0, prefix_cache: bool = True, **limits: Any) -> EngineCore:
    return build_core(engine_config(folder, **limits), prefix_cache=prefix_cache, overlap_depth=depth)


def begin(core: EngineCore, params: SamplingParams, prompt: list[int] = PROMPT, at: int = 0) -> Delta:
    """The first token of a prompt's answer, held as "h"."""
    first = drive(core, [(at, Prepare("h", MODEL, prompt, params=params))])["h"].prepared.first
    assert first is not None
    return first


def go_on(params: SamplingParams) -> Submit:
    return Submit(id="s", model=MODEL, params=params, handle="h", continues=True)


def told(first: Delta, seen: Seen) -> tuple[str, list[int], list[Any]]:
    deltas = [first, *seen.deltas]
    logprobs = [entry for delta in deltas for entry in delta.logprobs or []]
    return "".join(d.text for d in deltas), [token for d in deltas for token in d.token_ids], logprobs


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("name", ASKED)
def test_an_answer_that_goes_on_is_that_of_its_prompt(folder: Path, name: str, depth: int) -> None:
    asked = submit("s", PROMPT, **ASKED[name])
    [expected] = run(core_of(folder), asked)
    core = core_of(folder, depth=depth)
    first = begin(core, asked.params)
    assert len(first.token_ids) == 1
    seen = drive(core, [(0, go_on(asked.params))])["s"]
    finished = seen.finished
    assert told(first, seen)[:2] == (finished.text, finished.token_ids)
    assert told(first, seen)[2] == pytest.approx(expected.logprobs)
    assert (finished.text, finished.token_ids) == (expected.finished.text, expected.finished.token_ids)
    assert (finished.reason, finished.stop_match) == (expected.finished.reason, expected.finished.stop_match)
    stats = core.stats()[MODEL]
    assert stats["tokens_generated"] == len(finished.token_ids) == len(finished.timeline.token_times_s)
    assert stats["prompt_tokens_computed"] == len(PROMPT)
    assert is_idle(core)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(st.integers(1, 45), min_size=1, max_size=4),
    goes_on=st.lists(st.booleans(), min_size=4, max_size=4),
    budget=st.integers(4, 60),
    depth=st.sampled_from([0, 1]),
    n_blocks=st.sampled_from([16, 128]),
    seed=st.integers(0, 99),
)
def test_neither_company_nor_chunks_nor_memory_change_what_goes_on(
    folder: Path, lengths: list[int], goes_on: list[bool], budget: int, depth: int, n_blocks: int, seed: int
) -> None:
    """Some begun answers go on, others are let go; with few blocks some of those held lose theirs."""
    params = {"max_tokens": 9, "temperature": 1.0, "seed": seed, "ignore_eos": True}
    asked = [submit(f"s{i}", PROMPT[-n:], **params) for i, n in enumerate(lengths)]
    expected = [run(core_of(folder), each)[0].finished.token_ids for each in asked]
    core = core_of(folder, depth=depth, n_blocks=n_blocks, token_budget=budget, max_rows=4)
    arrivals: list[tuple[int, Command]] = [
        (i, Prepare(f"h{i}", MODEL, each.tokens or [], params=each.params)) for i, each in enumerate(asked)
    ]
    arrivals.append((2, submit("noise", PROMPT[::-1], max_tokens=30, ignore_eos=True)))
    begun = drive(core, arrivals)
    later: list[tuple[int, Command]] = [(1, submit("more noise", PROMPT[3:], max_tokens=9, ignore_eos=True))]
    for i, each in enumerate(asked):
        continued = Submit(id=each.id, model=MODEL, params=each.params, handle=f"h{i}", continues=True)
        later.append((i, continued if goes_on[i] else Release(f"h{i}")))
    seen = drive(core, later)
    for i, each in enumerate(asked):
        if goes_on[i]:
            first = begun[f"h{i}"].prepared.first
            assert first is not None
            assert told(first, seen[each.id])[1] == expected[i] == seen[each.id].finished.token_ids
    assert is_idle(core)


@pytest.mark.parametrize(
    "other",
    [
        submit("s", [], max_tokens=12, temperature=0.7, seed=9),
        submit("s", [], constraint=Choice(("alpha beta", "alpha gamma"))),
    ],
    ids=["other params", "a constraint"],
)
def test_another_answer_than_the_one_begun_is_untouched_by_it(folder: Path, other: Submit) -> None:
    [expected] = run(core_of(folder), msgspec.structs.replace(other, tokens=PROMPT))
    core = core_of(folder)
    begin(core, SamplingParams(temperature=2.0, max_tokens=5, ignore_eos=True))
    seen = drive(core, [(0, msgspec.structs.replace(other, tokens=None, handle="h"))])["s"]
    assert seen.finished.token_ids == expected.finished.token_ids
    assert told(Delta("", "", []), seen)[:2] == (seen.finished.text, seen.finished.token_ids)
    assert len(seen.finished.timeline.token_times_s) == len(seen.finished.token_ids)
    assert core.stats()[MODEL]["tokens_generated"] == len(seen.finished.token_ids)
    assert is_idle(core)


def test_what_nobody_goes_on_with_is_forgotten_with_its_handle(folder: Path) -> None:
    core = core_of(folder)
    begin(core, SamplingParams(temperature=0, max_tokens=5))
    assert not is_idle(core)
    drive(core, [(0, Release("h"))])
    assert is_idle(core)
    assert drive(core, [(0, go_on(SamplingParams()))])["s"].failed.code == "unknown_handle"


def test_only_what_was_begun_can_go_on(folder: Path) -> None:
    core = core_of(folder)
    drive(core, [(0, Prepare("h", MODEL, PROMPT))])
    assert drive(core, [(0, go_on(SamplingParams()))])["s"].failed.code == "unknown_handle"
    constrained = msgspec.structs.replace(go_on(SamplingParams()), constraint=Choice(("a",)))
    assert drive(core, [(0, constrained)])["s"].failed.code == "bad_submit"
    assert drive(core, [(0, msgspec.structs.replace(go_on(SamplingParams()), handle=None, tokens=PROMPT))])[
        "s"
    ].failed.code == ("bad_submit")
    strange = Prepare("g", MODEL, PROMPT, params=SamplingParams(logit_bias={9999: 1.0}))
    assert drive(core, [(0, strange)])["g"].failed.code == "bad_token"
    drive(core, [(0, Release("h"))])
    assert is_idle(core)


def test_the_second_token_takes_one_step_and_the_first_none(folder: Path) -> None:
    core = core_of(folder)
    params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    begin(core, params)
    before = instance_of(core).counters.steps
    drive(core, [(0, go_on(params))])
    assert instance_of(core).counters.steps == before + 1


# Through the client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(folder: Path) -> AsyncIterator[EngineClient]:
    async with EngineClient.in_process(PairConfig({MODEL: engine_config(folder)}, torch_threads=1)) as client:
        yield client


async def collect(client: EngineClient, params: SamplingParams, **options: Any) -> tuple[list[Delta], Finished]:
    events = [event async for event in client.submit(MODEL, params, **options)]
    *deltas, finished = events
    assert isinstance(finished, Finished)
    return [delta for delta in deltas if isinstance(delta, Delta)], finished


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_sees_one_answer_whether_it_was_begun_or_not(client: EngineClient) -> None:
    asked = SamplingParams(temperature=0.8, seed=4, max_tokens=12, ignore_eos=True, logprobs=1)
    silent = msgspec.structs.replace(asked, logprobs=None)
    _, expected = await collect(client, asked, tokens=PROMPT)
    for params in (asked, silent, msgspec.structs.replace(asked, seed=5)):
        prepared = await client.prepare(MODEL, PROMPT, params=asked)
        assert prepared.first is not None
        deltas, finished = await collect(client, params, handle=prepared.handle)
        assert [token for delta in deltas for token in delta.token_ids] == finished.token_ids
        assert "".join(delta.text for delta in deltas) == finished.text
        assert (finished.token_ids == expected.token_ids) == (params.seed == asked.seed)
        assert {delta.id for delta in deltas} == {finished.id}
        assert all((delta.logprobs is None) == (params.logprobs is None) for delta in deltas)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_first_delta_is_there_before_the_engine_hears_of_the_submit(client: EngineClient) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prepared = await client.prepare(MODEL, PROMPT, params=params)
    answer = client.submit(MODEL, params, handle=prepared.handle)
    first = anext(answer)
    task = asyncio.ensure_future(first)
    await asyncio.sleep(0)  # one turn of the loop: no event of another thread can have come in
    assert task.done()
    assert task.result() == msgspec.structs.replace(prepared.first, id=task.result().id)
    await answer.aclose()
    for _ in range(200):
        stats = (await client.stats())[MODEL]
        if stats["running_now"] == stats["held_now"] == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the cancelled answer goes on")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_constrained_answer_does_not_go_on_from_a_free_one(client: EngineClient) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    prepared = await client.prepare(MODEL, PROMPT, params=params)
    _, finished = await collect(client, params, handle=prepared.handle, constraint=Choice(("hello world", "hello")))
    assert finished.text in ("hello world", "hello")
