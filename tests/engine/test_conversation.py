"""Turns of a conversation: each computes only its new tokens, and says what it would have said without a cache."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.core import EngineCore
from engine.messages import Finished, Prepare, Prepared
from engine.request import CacheMiss
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, build_core, drive, engine_config, instance_of, run, submit

TURNS = (list(range(5, 24)), [30], list(range(40, 51)), [60, 61])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    build_checkpoint(path)
    return path


def core_of(
    folder: Path, state_layers: tuple[int, ...], *, block_size: int = 8, prefix_cache: bool = True, depth: int = 0
) -> EngineCore:
    config = replace(engine_config(folder, block_size=block_size), state_layers=state_layers)
    return build_core(config, prefix_cache=prefix_cache, overlap_depth=depth)


def ask(core: EngineCore, name: str, prompt: list[int]) -> Finished:
    return drive(core, [(0, submit(name, prompt, max_tokens=9, ignore_eos=True))])[name].finished


def prepare(core: EngineCore, name: str, prompt: list[int]) -> Prepared:
    return drive(core, [(0, Prepare(name, MODEL, prompt))])[name].prepared


def talk(core: EngineCore) -> tuple[list[Finished], list[int]]:
    """The last events of the turns, and all that was said; a prompt is everything before it and a few tokens more."""
    said, finished = list[int](), list[Finished]()
    for i, turn in enumerate(TURNS):
        said += turn
        finished.append(ask(core, f"turn {i}", said))
        said += finished[-1].token_ids
    return finished, said


@pytest.mark.parametrize(("state_layers", "depth"), [((), 0), ((), 1), ((0, 2), 0)])
@pytest.mark.parametrize("block_size", [1, 4, 8, 32])
def test_a_turn_computes_its_new_tokens_and_the_last_one_said(
    folder: Path, block_size: int, state_layers: tuple[int, ...], depth: int
) -> None:
    expected, _ = talk(core_of(folder, state_layers, prefix_cache=False))
    core = core_of(folder, state_layers, block_size=block_size, depth=depth)
    turns, _ = talk(core)
    assert [turn.token_ids for turn in turns] == [turn.token_ids for turn in expected]
    assert turns[0].timeline.computed_tokens == len(TURNS[0])
    # The last sampled token of a turn was never an input, so it is computed with the next one's.
    assert [turn.timeline.computed_tokens for turn in turns[1:]] == [1 + len(tokens) for tokens in TURNS[1:]]
    assert [turn.timeline.cache_miss for turn in turns] == [CacheMiss.COLD] + [CacheMiss.DIVERGED] * 3
    stats = instance_of(core).stats()
    assert [stats[f"prefix_miss_{miss}"] for miss in CacheMiss] == [0, 1, 3, 0, 0]


@pytest.mark.parametrize("block_size", [4, 8, 32])
def test_the_pooled_state_of_a_conversation_is_that_of_a_cold_prompt(folder: Path, block_size: int) -> None:
    core = core_of(folder, (0, 2), block_size=block_size)
    _, said = talk(core)
    warm, cold = prepare(core, "warm", said), prepare(core_of(folder, (0, 2)), "cold", said)
    assert (warm.computed_tokens, cold.computed_tokens) == (1, len(said))
    assert warm.cache_miss is CacheMiss.NONE
    states = [torch.frombuffer(bytearray(each.state), dtype=torch.float32) for each in (warm, cold)]
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-4)


def test_prompts_that_part_within_a_block_share_it_to_the_token(folder: Path) -> None:
    shared, tails = list(range(5, 18)), ([30, 31, 32], [40, 41], [50])
    core = core_of(folder, ())
    for i, tail in enumerate(tails):
        told = ask(core, str(i), shared + tail)
        assert told.token_ids == ask(core_of(folder, (), prefix_cache=False), "cold", shared + tail).token_ids
        assert told.timeline.computed_tokens == (len(shared) if i == 0 else 0) + len(tail)


@pytest.mark.parametrize("budget", [8, 20, 512])
def test_prompts_that_come_at_once_compute_what_they_share_once(folder: Path, budget: int) -> None:
    shared, tails = list(range(5, 45)), ([50] * 11, [51], [52, 53], [50] * 11)
    config = replace(engine_config(folder, token_budget=budget, max_rows=4), state_layers=())
    core = build_core(config)
    asked = [submit(str(i), shared + tail, max_tokens=5, ignore_eos=True) for i, tail in enumerate(tails)]
    told = [seen.finished for seen in run(core, *asked)]
    for prompt, each in zip(asked, told, strict=True):
        alone = run(build_core(config, prefix_cache=False), prompt)[0].finished
        assert each.token_ids == alone.token_ids
    if budget == 512:  # all in one step: blocks of 8 that are full in it
        assert [each.timeline.cached_tokens for each in told] == [0, 40, 40, 48]


def test_pooled_states_of_prompts_that_come_at_once_are_those_of_each_alone(folder: Path) -> None:
    prompts = [list(range(5, 45)) + [50] * n for n in (1, 9, 30, 9)]
    core = core_of(folder, (0, 2))
    seen = drive(core, [(0, Prepare(str(i), MODEL, prompt)) for i, prompt in enumerate(prompts)])
    assert [seen[str(i)].prepared.cached_tokens for i in range(4)] == [0, 40, 48, 48]
    for i, prompt in enumerate(prompts):
        alone = prepare(core_of(folder, (0, 2)), "alone", prompt)
        states = [
            torch.frombuffer(bytearray(each.state), dtype=torch.float32) for each in (seen[str(i)].prepared, alone)
        ]
        torch.testing.assert_close(*states, atol=1e-4, rtol=1e-4)
