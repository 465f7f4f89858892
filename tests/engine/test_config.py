"""Configurations: what a checkpoint says is read as transformers reads it, and what cannot be computed is refused by
name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig, resolve_dtype
from engine.models.rope import rope_frequencies
from tests.engine.checkpoints import FAMILIES

SMALL = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def raw(family: str = "llama", **overrides: Any) -> dict[str, Any]:
    return {"model_type": family, "architectures": ["XForCausalLM"], **SMALL, **overrides}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_from_what_transformers_saves(family: str, tmp_path: Path) -> None:
    FAMILIES[family][0](**SMALL, eos_token_id=7, bos_token_id=1).save_pretrained(tmp_path)
    config = ModelConfig.from_folder(tmp_path)
    assert (config.family, config.n_layers, config.n_heads, config.n_kv_heads) == (family, 4, 4, 2)
    assert config.head_dim == (128 if family == "qwen3" else 12)
    assert (config.has_qkv_bias, config.has_qk_norm) == (family == "qwen2", family == "qwen3")
    assert (config.eos_token_ids, config.bos_token_id, config.max_position) == ((7,), 1, 256)


@given(
    st.sampled_from([Qwen2Config, Qwen3Config]),
    st.booleans(),
    st.none() | st.integers(1, 99),
    st.integers(0, 5),
)
def test_windows_of_qwen_are_those_of_transformers(
    config_class: type[Any], is_used: bool, window: int | None, first: int
) -> None:
    reference = config_class(**SMALL, use_sliding_window=is_used, sliding_window=window, max_window_layers=first)
    expected = tuple(
        reference.sliding_window if kind == "sliding_attention" else None for kind in reference.layer_types
    )
    written = raw(reference.model_type, use_sliding_window=is_used, sliding_window=window, max_window_layers=first)
    assert ModelConfig.from_dict(written).windows == expected
    saved = reference.to_dict() | {"use_sliding_window": is_used}
    assert ModelConfig.from_dict(saved).windows == expected


def test_mistral_has_its_window_in_every_layer_and_one_by_default() -> None:
    assert ModelConfig.from_dict(raw("mistral", sliding_window=33)).windows == (33,) * 4
    assert ModelConfig.from_dict(raw("mistral", sliding_window=None)).windows == (None,) * 4
    assert ModelConfig.from_dict(raw("mistral")).windows == (MistralConfig().sliding_window,) * 4


ROPES = [
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_theta": 500_000.0,
    },
    {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.5, "high_freq_factor": 3.0,
        "original_max_position_embeddings": 128, "rope_theta": 1_000.0,
    },
]  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_frequencies_equal_transformers_in_the_old_and_the_new_spelling(rope: dict[str, Any], head_dim: int) -> None:
    reference: PretrainedConfig = FAMILIES["llama"][0](**SMALL, head_dim=head_dim, rope_parameters=dict(rope))
    expected, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](reference, torch.device("cpu"))
    scaling = {("type" if key == "rope_type" else key): value for key, value in rope.items() if key != "rope_theta"}
    old = raw(rope_scaling=scaling, rope_theta=rope["rope_theta"], head_dim=head_dim)
    for written in (raw(rope_parameters=rope, head_dim=head_dim), old):
        inv_freq, scale = rope_frequencies(ModelConfig.from_dict(written).rope, head_dim)
        torch.testing.assert_close(inv_freq, expected, rtol=1e-6, atol=0)
        assert scale == factor


def test_end_tokens_of_both_files_are_joined(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw(eos_token_id=2)))
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (2,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 2]}))
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (9, 2)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, "needs a factor"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "names 1 layers"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 4}, "sliding_window is off"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ModelConfig.from_dict(raw() | overrides)


def test_a_folder_without_or_with_a_broken_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        ModelConfig.from_folder(tmp_path)
    for broken in ("{", "[]"):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(ValueError, match=r"config\.json"):
            ModelConfig.from_folder(tmp_path)


def test_the_cache_size_comes_from_blocks_or_bytes_but_not_both() -> None:
    assert CacheConfig(n_blocks=7).count_blocks(10**12) == 7
    assert CacheConfig(kv_bytes=1000).count_blocks(300) == 3
    assert CacheConfig().count_blocks(2**20) == 512
    for wrong in ({"n_blocks": 1, "kv_bytes": 1}, {"n_blocks": 0}, {"block_size": 0}):
        with pytest.raises(ValueError, match=r"n_blocks|block_size"):
            CacheConfig(**wrong)
    with pytest.raises(ValueError, match="use 300 or more"):
        CacheConfig(kv_bytes=299).count_blocks(300)


@pytest.mark.parametrize("name", ["token_budget", "max_rows", "prefill_cap", "max_waiting_tokens"])
def test_limits_of_the_scheduler_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        SchedulerConfig(**{name: 0})


def test_lengths_and_state_layers_stay_within_the_model() -> None:
    model = ModelConfig.from_dict(raw())
    assert EngineConfig(Path()).model_len(model) == 256
    assert EngineConfig(Path(), max_model_len=99).model_len(model) == 99
    assert EngineConfig(Path()).pooled_layers(model) == (2, 3)
    assert EngineConfig(Path(), state_layers=(3, 0, 3)).pooled_layers(model) == (0, 3)
    with pytest.raises(ValueError, match="256 positions"):
        EngineConfig(Path(), max_model_len=257).model_len(model)
    with pytest.raises(ValueError, match="layers 0 to 3"):
        EngineConfig(Path(), state_layers=(4,)).pooled_layers(model)


def test_the_dtype_is_what_was_asked_or_what_the_machine_multiplies() -> None:
    assert resolve_dtype("float32") == "float32"
    assert resolve_dtype("bfloat16") == "bfloat16"
    assert resolve_dtype("auto", "cuda:0") == "bfloat16"
    assert resolve_dtype("auto") in ("float32", "bfloat16")
    with pytest.raises(ValueError, match="float16"):
        resolve_dtype("float16")  # type: ignore[arg-type]
