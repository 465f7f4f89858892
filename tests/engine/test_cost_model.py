"""Operations and bytes against the model itself, and the line that learns seconds."""

import random
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.cost_model import CostModel, StepCost
from engine.models.config import ModelConfig
from tests.engine.checkpoints import build_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    build_checkpoint(folder)
    return folder


def cost_model(folder: Path, **options: float) -> CostModel:
    return CostModel(ModelConfig.from_folder(folder), weight_itemsize=4, kv_itemsize=4, **options)


def test_operations_are_those_that_torch_counts(folder: Path, tmp_path: Path) -> None:
    model = build_checkpoint(tmp_path)
    model.set_attn_implementation("eager")
    n = 24
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.arange(4, 4 + n)[None], use_cache=False)
    # The reference computes whole squares of attention and logits for every token.
    cost = cost_model(folder).step(n_tokens=n, n_pairs=n * n, n_keys=n, n_logits=n)
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_bytes_are_the_weights_and_the_pages(folder: Path, tmp_path: Path) -> None:
    model = build_checkpoint(tmp_path)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    config = ModelConfig.from_folder(folder)
    per_token = config.kv_bytes_per_block(1, 4)
    cost = cost_model(folder).step(n_tokens=1, n_pairs=100, n_keys=100, n_logits=1)
    assert cost.bytes == matrices * 4 + 101 * per_token


def test_seconds_follow_the_line_that_steps_lie_on(folder: Path) -> None:
    model, draw = cost_model(folder, half_life_steps=20), random.Random(0)
    for _ in range(400):
        cost = StepCost(flops=draw.uniform(1e6, 1e9), bytes=0)
        model.observe(cost, 0.004 + cost.flops * 3e-11)
    for flops in (1e6, 1e8, 2e9):
        assert model.seconds(StepCost(flops, 0)) == pytest.approx(0.004 + flops * 3e-11, rel=0.01)


def test_it_forgets_how_fast_the_machine_once_was(folder: Path) -> None:
    model, cost = cost_model(folder, half_life_steps=10), StepCost(1e8, 0)
    for seconds in [0.001] * 100 + [0.1] * 100:
        model.observe(cost, seconds)
    assert model.seconds(cost) == pytest.approx(0.1, rel=0.02)


def test_predictions_are_never_negative_and_grow_with_the_queue(folder: Path) -> None:
    model = cost_model(folder)
    assert 0 < model.drain_s(100, 512) < model.drain_s(1000, 512)
    for seconds in (1.0, 0.0, 0.0):
        model.observe(StepCost(1e3, 0), seconds)
        model.observe(StepCost(1e9, 0), 0.0)
    assert model.seconds(StepCost(1e12, 0)) >= 0
    assert model.seconds(StepCost(0, 0)) >= 0
