"""How much of a GPU an engine takes when nobody says how much."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.config import CacheConfig, EngineConfig, SchedulerConfig
from engine.pair import load_engine
from engine.pair_config import InstanceOptions, PairConfig
from tests.engine.checkpoints import build_checkpoint
from tests.engine.harness import drive, instance_of, submit
from tests.gpu.machine import DEVICE, platform

WIDE = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 8}
"""So that a page is large: of small ones a GPU would hold millions."""
pytestmark = pytest.mark.skipif(DEVICE.type == "cpu", reason="a CPU's memory has no end that counts here")


def test_pages_fill_what_weights_steps_and_graphs_leave(tmp_path: Path) -> None:
    build_checkpoint(tmp_path, "llama", max_position_embeddings=4096, **WIDE)
    limits = SchedulerConfig(token_budget=2048, max_rows=64)
    model = EngineConfig(tmp_path, dtype="bfloat16", cache=CacheConfig(block_size=32), scheduler=limits)
    torch.cuda.empty_cache()
    free_before, total = torch.cuda.mem_get_info(DEVICE)
    share = 0.15
    options = InstanceOptions(calibrate_s=0.2)
    core = load_engine(PairConfig({"model": model}, memory_share=share, options=options), None, platform()).core
    free_after = torch.cuda.mem_get_info(DEVICE)[0]
    taken = (free_before - free_after) / (total * (share - 1.0) + free_before)
    assert 0.8 < taken <= 1.0, "of what it may take"
    prompts = [[(row * 7 + at) % 480 + 8 for at in range(1500)] for row in range(64)]
    seen = drive(core, [(0, submit(str(row), prompt, max_tokens=8)) for row, prompt in enumerate(prompts)])
    assert len(seen) == 64
    assert all(each.finished for each in seen.values())
    used = 1.0 - torch.cuda.mem_get_info(DEVICE)[0] / total
    assert used <= share + 0.02 + (total - free_before) / total
    assert instance_of(core).info.n_blocks > 1000


def test_two_models_share_so_that_both_hold_as_many_tokens(tmp_path: Path) -> None:
    sizes = {"small": 2, "large": 6}
    models = {}
    for name, n_layers in sizes.items():
        build_checkpoint(tmp_path / name, "llama", **(WIDE | {"num_hidden_layers": n_layers}))
        config = EngineConfig(tmp_path / name, scheduler=SchedulerConfig(token_budget=512, max_rows=16))
        models[name] = replace(config, max_model_len=256)
    options = InstanceOptions(calibrate_s=0.0)
    core = load_engine(PairConfig(models, memory_share=0.1, options=options), None, platform()).core
    small, large = (instance_of(core, name).info.n_blocks for name in sizes)
    assert abs(small - large) / large < 0.01
