"""The Triton kernels as the set that a GPU gets, under the runner: the same logits and states as with the CPU's set."""

from pathlib import Path

import pytest
import torch

from engine import platform
from engine.config import CacheConfig, KVDtype
from engine.models.loading import load_decoder
from engine.runner import ModelRunner, RunnerOutput
from kernels import gpu
from tests.engine.checkpoints import build_checkpoint
from tests.engine.driver import Driver, Sequence


def steps(folder: Path, kv_dtype: KVDtype = "auto") -> list[RunnerOutput]:
    """A prompt in two chunks with company, a decode, a draft to verify, a tree, and what follows one of its
    branches."""
    model = load_decoder(folder, torch.float32)
    cache = CacheConfig(block_size=4, n_blocks=32, kv_dtype=kv_dtype)
    driver = Driver(ModelRunner(model.config, model, cache, (1,)))
    one, other = Sequence("one", list(range(5, 18))), Sequence("other", list(range(30, 36)))
    outputs = [
        driver.run([driver.row(one, 6, 0), driver.row(other, 5, 1)]),
        driver.run([driver.row(one, 3, 1, wants_state=True, turn_start=5), driver.row(other, 1, 1)]),
    ]
    draft = driver.row(one, 4, 4)
    outputs.append(driver.run([draft]))
    driver.runner.settle([(draft, (0, 1, 2))])
    one.tokens.append(20)
    tree = driver.draft_row(one, range(21, 27), (-1, 0, -1, 2, 2, 0))
    outputs.append(driver.run([tree]))
    driver.settle((one, tree, (2, 4)))
    one.tokens.append(28)
    return [*outputs, driver.run([driver.row(one, 1, 1, wants_state=True)])]


@pytest.mark.parametrize("family", ["mistral", "qwen3", "gemma2"])
def test_the_runner_computes_the_same_with_the_kernels_of_a_gpu(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"mistral": {"sliding_window": 5}, "qwen3": {"head_dim": 12}, "gemma2": {"sliding_window": 5}}[family]
    build_checkpoint(tmp_path, family, hidden_size=32, intermediate_size=40, num_hidden_layers=2, **settings)
    expected = steps(tmp_path)
    monkeypatch.setattr(platform, "kernels_for", lambda *_device, **_options: gpu.build())
    for actual, wanted in zip(steps(tmp_path), expected, strict=True):
        torch.testing.assert_close(actual.logits, wanted.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(actual.states, wanted.states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_pages_of_8_bits_move_logits_a_little(
    kv_dtype: KVDtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_checkpoint(tmp_path, "llama", hidden_size=32, intermediate_size=40, num_hidden_layers=2)
    expected = steps(tmp_path)
    monkeypatch.setattr(platform, "kernels_for", lambda *_device, **_options: gpu.build())
    for actual, wanted in zip(steps(tmp_path, kv_dtype), expected, strict=True):
        error = (actual.logits - wanted.logits).norm() / wanted.logits.norm()
        assert 0.0 < error < 0.05, "rounded, and no more than that"
