"""Configurations: limits that are checked when they are made, and what is left to the machine or the model."""

from pathlib import Path

import pytest

from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig, resolve_dtype
from engine.pair_config import InstanceOptions, PairConfig

MODEL = ModelConfig.from_dict(
    {
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
)


def test_the_cache_size_comes_from_blocks_or_bytes_but_not_both() -> None:
    assert CacheConfig(n_blocks=7).count_blocks(10**12) == 7
    assert CacheConfig(kv_bytes=1000).count_blocks(300) == 3
    assert CacheConfig().count_blocks(2**20) == 512
    for wrong in ({"n_blocks": 1, "kv_bytes": 1}, {"n_blocks": 0}, {"block_size": 0}):
        with pytest.raises(ValueError, match=r"n_blocks|block_size"):
            CacheConfig(**wrong)
    with pytest.raises(ValueError, match="use 300 or more"):
        CacheConfig(kv_bytes=299).count_blocks(300)


@pytest.mark.parametrize(
    "name", ["token_budget", "max_rows", "prefill_cap", "max_slowdown", "min_chunk", "max_shared_step_s", "priority_s"]
)
def test_limits_of_the_scheduler_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        SchedulerConfig(**{name: 0})


def test_lengths_and_state_layers_stay_within_the_model() -> None:
    assert EngineConfig(Path()).model_len(MODEL) == 256
    assert EngineConfig(Path(), max_model_len=99).model_len(MODEL) == 99
    assert EngineConfig(Path()).pooled_layers(MODEL) == (2, 3)
    assert EngineConfig(Path(), state_layers=(3, 0, 3)).pooled_layers(MODEL) == (0, 3)
    with pytest.raises(ValueError, match="256 positions"):
        EngineConfig(Path(), max_model_len=257).model_len(MODEL)
    with pytest.raises(ValueError, match="layers 0 to 3"):
        EngineConfig(Path(), state_layers=(4,)).pooled_layers(MODEL)


def test_the_dtype_is_what_was_asked_or_what_the_machine_multiplies() -> None:
    assert resolve_dtype("float32") == "float32"
    assert resolve_dtype("bfloat16") == "bfloat16"
    assert resolve_dtype("auto", "cuda:0") == "bfloat16"
    assert resolve_dtype("auto") in ("float32", "bfloat16")
    assert resolve_dtype("float16", "cuda:0") == "float16"
    with pytest.raises(ValueError, match=r"float16.*for GPUs.*cpu"):
        resolve_dtype("float16")
    with pytest.raises(ValueError, match="use auto, float32, bfloat16 or float16"):
        resolve_dtype("float8", "cuda")  # type: ignore[arg-type]


def test_what_is_left_open_means_more_on_a_gpu() -> None:
    open_, closed = SchedulerConfig(), SchedulerConfig(token_budget=96, max_rows=3, min_chunk=5)
    assert (open_.budget, open_.rows, open_.least_chunk) == (512, 64, 2)
    on_gpu = open_.for_gpu()
    assert (on_gpu.budget, on_gpu.rows, on_gpu.least_chunk) == (8192, 256, 256)
    assert closed.for_gpu() == closed
    assert SchedulerConfig(token_budget=40).for_gpu().rows == 40, "every running request needs a token in a step"
    options = InstanceOptions()
    assert [options.depth(runs_beside=beside) for beside in (False, True)] == [0, 1]
    assert InstanceOptions(overlap_depth=0).depth(runs_beside=True) == 0


def test_shares_and_formats_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_share is 0\.0: use more than 0"):
        PairConfig({"model": EngineConfig(Path())}, memory_share=0.0)
    with pytest.raises(ValueError, match="kv_dtype is 'int4': use auto, int8, fp8"):
        CacheConfig(kv_dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="overlap_depth is 2"):
        InstanceOptions(overlap_depth=2)
