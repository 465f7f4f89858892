"""The runner on the GPU computes what it computes on the CPU, in every family."""

from pathlib import Path

import pytest
import torch

from engine.config import CacheConfig
from engine.models.loading import load_decoder
from engine.plan import Row
from engine.platform import Platform
from engine.quantization import converter
from engine.runner import ModelRunner, RunnerOutput
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import Driver, Sequence
from tests.gpu.machine import DEVICE, TOLERANCE, pick, platform

WINDOWED = {"mistral": {"sliding_window": 5}, "gemma2": {"sliding_window": 5}, "gemma3_text": {"sliding_window": 5}}
LONG = pick(200, 24)


def steps(folder: Path, dtype: torch.dtype, where: Platform, *, is_recorded: bool) -> list[RunnerOutput]:
    """A prompt in chunks with company, decodes, a draft to verify, a tree, and what follows one of its branches."""
    model = load_decoder(folder, dtype, where.device)
    runner = ModelRunner(model.config, model, CacheConfig(block_size=16, n_blocks=64), (1,), platform=where)
    if is_recorded:
        runner.record(max_rows=4, max_model_len=LONG + 16, max_draft=7, width=2)
    driver = Driver(runner)
    prompt = torch.randint(4, 480, (LONG,), generator=torch.Generator().manual_seed(1)).tolist()
    one, other = Sequence("one", prompt), Sequence("other", prompt[3:30])
    n = LONG - 7

    def run(*rows: Row) -> RunnerOutput:
        output = driver.run(rows)  # holds until the next replay
        return RunnerOutput(output.logits.to("cpu", copy=True), {k: v.cpu() for k, v in output.states.items()})

    outputs = [
        run(driver.row(one, n, 0), driver.row(other, 5, 1)),
        run(driver.row(one, 1, 1, wants_state=True, turn_start=LONG // 2), driver.row(other, 1, 1)),
        run(driver.row(one, 1, 1)),
    ]
    draft = driver.row(one, 4, 4)
    outputs.append(run(draft, driver.row(other, 2, 2)))
    runner.settle([(draft, (0, 1, 2))])
    one.tokens.append(20)
    tree = driver.draft_row(one, range(21, 27), (-1, 0, -1, 2, 2, 0))
    outputs.append(run(tree, driver.row(other, 1, 1)))
    driver.settle((one, tree, (2, 4)))
    one.tokens.append(28)
    return [*outputs, run(driver.row(one, 1, 1, wants_state=True))]


@pytest.mark.parametrize("family", pick(["llama", "qwen3", "gemma2", "gemma3_text", "qwen3_moe"], ["qwen3", "gemma2"]))
@pytest.mark.parametrize("is_recorded", [False, True])
def test_logits_and_states_are_those_of_the_cpu(family: str, is_recorded: bool, tmp_path: Path) -> None:
    build_checkpoint(tmp_path, family, num_hidden_layers=2, **WINDOWED.get(family, {}))
    expected = steps(tmp_path, torch.float32, Platform.of("cpu"), is_recorded=False)
    actual = steps(tmp_path, torch.float32, platform(graphs=is_recorded), is_recorded=is_recorded)
    for found, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(found.logits, wanted.logits, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(found.states, wanted.states, atol=2e-3, rtol=1e-3)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="Triton's interpreter computes 16-bit numbers in its own way")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen3", "gemma3_text"])
def test_in_16_bits_logits_are_near_those_in_32(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    build_checkpoint(tmp_path, family, num_hidden_layers=2, initializer_range=0.05, **WINDOWED.get(family, {}))
    expected = steps(tmp_path, torch.float32, Platform.of("cpu"), is_recorded=False)
    actual = steps(tmp_path, dtype, platform(), is_recorded=True)
    for found, wanted in zip(actual, expected, strict=True):
        error = (found.logits - wanted.logits).norm() / wanted.logits.norm()
        assert error < 5 * TOLERANCE[dtype]


def test_an_invariant_runner_gives_a_position_the_same_bits_in_any_cut(tmp_path: Path) -> None:
    build_checkpoint(tmp_path, "qwen3", num_hidden_layers=2)
    dtype = pick(torch.bfloat16, torch.float32)
    convert = converter("none", dtype, torch.device("cuda"), is_invariant=True)
    model = load_decoder(tmp_path, dtype, DEVICE, convert)
    cache = CacheConfig(block_size=16, n_blocks=128)
    runner = ModelRunner(model.config, model, cache, is_invariant=True, platform=platform(graphs=False))
    n = pick(190, 24)
    tokens = torch.randint(4, 480, (n,), generator=torch.Generator().manual_seed(5)).tolist()
    driver, found = Driver(runner), list[torch.Tensor]()
    for number, cut in enumerate([(n,), (n // 2, 1, 1, n - n // 2 - 2), (1, 1, 1, n - 3)]):
        sequence, parts = Sequence(f"s{number}", tokens), list[torch.Tensor]()
        for step, size in enumerate(cut):
            rows = [driver.row(sequence, size, size)]
            if number and step < 3:
                rows.append(driver.row(Sequence(f"c{number}-{step}", tokens[step : step + 5]), 5, 0))
            parts.append(driver.run(rows).logits.clone())
        found.append(torch.cat(parts))
    for other in found[1:]:
        # numpy, which the interpreter multiplies with, rounds a row by its place in the block.
        torch.testing.assert_close(other, found[0], atol=pick(0.0, 1e-4), rtol=0.0)
    assert found[0].isfinite().all()
