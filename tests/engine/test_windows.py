"""Models whose layers see only part of the context, far beyond their windows, against transformers: pages behind a
window are given back and used again while the answer goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from engine.messages import Command, Prepare, Release
from engine.runner import ModelRunner
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import MODEL, build_core, drive, engine_config, instance_of, is_idle, run, submit
from tests.engine.test_models_parity import random_tokens, reference_greedy

MIXED = {"use_sliding_window": True, "sliding_window": 9, "num_hidden_layers": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "all-windowed": ("mistral", {"sliding_window": 11}),
    "half-windowed": ("qwen2", {**MIXED, "max_window_layers": 2}),
    "padded-groups": ("qwen3", {**MIXED, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}),
}
LENGTHS, N_NEW = (130, 60, 3), 24


@pytest.fixture(scope="module", params=CASES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PreTrainedModel, list[list[int]]]:
    """A model, and what transformers says after prompts of these lengths."""
    family, overrides = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    model = build_checkpoint(folder, family, seed=len(request.param), **overrides)
    return folder, model, [reference_greedy(model, random_tokens(n, seed=n), N_NEW) for n in LENGTHS]


@pytest.fixture(scope="module", params=["mistral", "qwen2"])
def windowed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of windows alone, and one with windows in half of its layers."""
    folder = tmp_path_factory.mktemp(request.param)
    options = {"mistral": {"sliding_window": 11}, "qwen2": {**MIXED, "num_hidden_layers": 2, "max_window_layers": 1}}
    build_checkpoint(folder, request.param, **options[request.param])
    return folder


def runner_of(folder: Path, **options: Any) -> ModelRunner:
    return instance_of(build_core(engine_config(folder, **options)))._runner


@pytest.mark.parametrize("block_size", [4, 8, 32])
@pytest.mark.parametrize(("budget", "depth"), [(7, 0), (512, 0), (40, 1)])
def test_answers_equal_transformers_cold_and_warm_alone_and_in_a_batch(
    checkpoint: tuple[Path, PreTrainedModel, list[list[int]]], block_size: int, budget: int, depth: int
) -> None:
    folder, _, expected = checkpoint
    config = engine_config(folder, block_size=block_size, n_blocks=2400 // block_size, token_budget=budget)
    core = build_core(replace(config, state_layers=()), overlap_depth=depth)
    for round_name in ("cold", "warm"):
        asked = [
            submit(f"{round_name} {n}", random_tokens(n, seed=n), max_tokens=N_NEW, ignore_eos=True) for n in LENGTHS
        ]
        together = run(core, *asked)
        assert [seen.finished.token_ids for seen in together] == expected
    [longest] = run(core, submit("alone", random_tokens(130, seed=130), max_tokens=N_NEW, ignore_eos=True))
    assert longest.finished.token_ids == expected[0]
    assert longest.finished.timeline.computed_tokens == 1
    assert is_idle(core)


def test_answers_equal_transformers_when_requests_take_each_others_pages(
    checkpoint: tuple[Path, PreTrainedModel, list[list[int]]],
) -> None:
    """The prompts barely fit: requests are preempted, blocks evicted, pages behind windows used again."""
    folder, _, expected = checkpoint
    n_groups = len(runner_of(folder).groups)
    config = engine_config(folder, block_size=4, n_blocks=44 * n_groups, token_budget=16)
    core = build_core(config)
    asked = [submit(str(n), random_tokens(n, seed=n), max_tokens=N_NEW, ignore_eos=True) for n in LENGTHS]
    for order in (asked, asked[::-1], asked):
        seen = {event.id: each for event, each in zip(order, run(core, *order), strict=True)}
        assert [seen[str(n)].finished.token_ids for n in LENGTHS] == expected
    assert instance_of(core).stats()["block_evictions"] > 0


@torch.inference_mode()
def test_the_pooled_state_of_a_long_prompt_equals_transformers_though_its_pages_are_gone(
    checkpoint: tuple[Path, PreTrainedModel, list[list[int]]],
) -> None:
    folder, model, _ = checkpoint
    tokens = random_tokens(130, seed=130)
    last = model.config.num_hidden_layers - 1
    hidden: list[torch.Tensor] = []
    hook = model.model.layers[last].register_forward_hook(
        lambda _module, _inputs, output: hidden.append(output[0] if isinstance(output, tuple) else output)
    )
    model(torch.tensor([tokens]))
    hook.remove()
    of_tokens = hidden[0].view(130, -1)
    core = build_core(replace(engine_config(folder, block_size=4, token_budget=16, n_blocks=400), state_layers=(last,)))
    states = instance_of(core)._runner._states
    for name, turn_start in (("cold", 0), ("warm", 0), ("turn", 110), ("long turn", 9)):
        command = Prepare(name, MODEL, tokens, turn_start=turn_start)
        prepared = drive(core, [(0, command), (200, Release(name))])[name].prepared
        state = torch.frombuffer(bytearray(prepared.state), dtype=torch.float32).reshape(prepared.state_shape)
        wanted = torch.stack((of_tokens[-1], of_tokens[states.pooled_from(turn_start, 130) :].mean(0)))[None]
        torch.testing.assert_close(state, wanted, atol=1e-4, rtol=1e-4)
    assert prepared.cached_tokens >= 128


@settings(max_examples=15, deadline=None)
@given(
    turn_start=st.integers(0, 129),
    warm=st.integers(0, 130),
    budget=st.sampled_from([5, 16, 140]),
    is_tight=st.booleans(),
    has_company=st.booleans(),
)
def test_the_mean_over_a_turn_is_the_same_bits_whatever_happened_to_its_pages(
    windowed: Path, turn_start: int, warm: int, budget: int, is_tight: bool, has_company: bool
) -> None:
    """Behind windows, found in the cache in part, preempted where pages are few, or in company."""
    tokens, n_blocks = random_tokens(130, seed=130), 90 if is_tight else 400
    command = Prepare("turn", MODEL, tokens, turn_start=turn_start)
    config = replace(
        engine_config(windowed, block_size=4, token_budget=budget, n_blocks=n_blocks), state_layers=(1,), invariant=True
    )
    [expected] = [drive(build_core(config), [(0, command)])["turn"].prepared]
    core = build_core(config)
    arrivals: list[tuple[int, Command]] = [(200, command)]
    if warm:
        arrivals.append((0, submit("before", tokens[:warm], max_tokens=1)))
    if has_company:
        others = [submit(f"beside {i}", random_tokens(30, seed=i), max_tokens=90, ignore_eos=True) for i in range(3)]
        arrivals += [(180 + i, other) for i, other in enumerate(others)]
    found = drive(core, arrivals)["turn"].prepared
    assert (found.state, found.entropy, found.margin) == (expected.state, expected.entropy, expected.margin)


def test_a_model_of_windows_alone_answers_beyond_what_its_pages_hold(tmp_path: Path) -> None:
    model = build_checkpoint(tmp_path, "mistral", sliding_window=11, seed=5)
    prompt = random_tokens(200, seed=1)
    core = build_core(engine_config(tmp_path, block_size=4, n_blocks=16, token_budget=8))
    assert 16 * 4 < 200
    [seen] = run(core, submit("s", prompt, max_tokens=N_NEW, ignore_eos=True))
    assert seen.finished.token_ids == reference_greedy(model, prompt, N_NEW)
