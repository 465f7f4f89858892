"""What a checkpoint says is read as transformers reads it, and what cannot be computed is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import Gemma2Config, Gemma3TextConfig, MistralConfig, Qwen2Config, Qwen2MoeConfig, Qwen3Config

from engine.config import EngineConfig, ModelConfig
from engine.models.family import FAMILIES as SUPPORTED
from tests.engine.checkpoints import DEFAULTS, FAMILIES

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
    return {"model_type": family, "architectures": ["XForCausalLM"]} | SMALL | overrides


def test_every_supported_family_is_held_to_transformers_and_documented() -> None:
    assert set(SUPPORTED) == set(FAMILIES)
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in SUPPORTED if f"`{name}`" not in page] == []


def windows_of(reference: Any) -> tuple[int | None, ...]:
    return tuple(reference.sliding_window if kind == "sliding_attention" else None for kind in reference.layer_types)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_from_what_transformers_saves(family: str, tmp_path: Path) -> None:
    reference = FAMILIES[family][0](**SMALL, num_experts_per_tok=2, eos_token_id=7, bos_token_id=1)
    reference.save_pretrained(tmp_path)
    config = ModelConfig.from_folder(tmp_path)
    assert (config.family, config.n_layers, config.n_heads, config.n_kv_heads) == (family, 4, 4, 2)
    assert config.head_dim == (getattr(reference, "head_dim", None) or 12)
    assert (config.norm_eps, config.is_tied) == (reference.rms_norm_eps, reference.tie_word_embeddings)
    assert config.attention_softcap == getattr(reference, "attn_logit_softcapping", None)
    assert config.logits_softcap == getattr(reference, "final_logit_softcapping", None)
    assert config.attention_scale == getattr(reference, "query_pre_attn_scalar", config.head_dim) ** -0.5
    assert config.has_qkv_bias == family.startswith("qwen2")
    assert config.has_qk_norm == (family.startswith("qwen3") or family == "gemma3_text")
    assert (config.experts is not None) == (family == "mixtral" or family.endswith("_moe"))
    assert (config.eos_token_ids, config.bos_token_id, config.max_position) == ((7,), 1, 256)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_that_a_file_leaves_out_have_the_defaults_of_transformers(family: str) -> None:
    given = {"num_experts_per_tok": 2, "tie_word_embeddings": False} | SMALL | DEFAULTS.get(family, {})
    needed = {key: value for key, value in given.items() if key not in ("head_dim", "sliding_window")}
    reference = FAMILIES[family][0](**needed)
    written = raw(family, **needed)
    saved = ModelConfig.from_dict(reference.to_dict() | {"eos_token_id": None, "bos_token_id": None})
    assert ModelConfig.from_dict(written) == saved


@given(
    st.sampled_from([Qwen2Config, Qwen3Config, Qwen2MoeConfig]),
    st.booleans(),
    st.none() | st.integers(1, 99),
    st.integers(0, 5),
)
def test_windows_of_qwen_are_those_of_transformers(
    config_class: type[Any], is_used: bool, window: int | None, first: int
) -> None:
    assume(window or config_class is not Qwen2MoeConfig)  # which calls layers sliding that have no window
    keys = SMALL | DEFAULTS.get(config_class.model_type, {})
    reference = config_class(**keys, use_sliding_window=is_used, sliding_window=window, max_window_layers=first)
    expected = windows_of(reference) if is_used and window else (None,) * 4
    given_keys = {"use_sliding_window": is_used, "sliding_window": window, "max_window_layers": first}
    written = raw(reference.model_type, **keys, num_experts_per_tok=2, **given_keys)
    assert ModelConfig.from_dict(written).windows == expected
    saved = reference.to_dict() | {"use_sliding_window": is_used}
    assert ModelConfig.from_dict(saved).windows == expected


@pytest.mark.parametrize(("config_class", "pattern"), [(Gemma2Config, None), (Gemma3TextConfig, 3)])
def test_windows_of_gemma_alternate_as_in_transformers(config_class: type[Any], pattern: int | None) -> None:
    given = {} if pattern is None else {"sliding_window_pattern": pattern}
    reference = config_class(**SMALL, sliding_window=7, **given)
    written = raw(reference.model_type, sliding_window=7, **given)
    assert ModelConfig.from_dict(written).windows == windows_of(reference)
    assert ModelConfig.from_dict(reference.to_dict()).windows == windows_of(reference)


def test_mistral_has_its_window_in_every_layer_and_one_by_default() -> None:
    assert ModelConfig.from_dict(raw("mistral", sliding_window=33)).windows == (33,) * 4
    assert ModelConfig.from_dict(raw("mistral", sliding_window=None)).windows == (None,) * 4
    assert ModelConfig.from_dict(raw("mistral")).windows == (MistralConfig().sliding_window,) * 4


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
        ({"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "rope type 'proportional'"),
        ({"rope_scaling": {"type": "linear"}}, "needs factor"),
        ({"rope_scaling": {"type": "linear", "factor": -2.0}}, "must be positive"),
        ({"rope_scaling": {"type": "default", "mrope_section": [8, 2, 2]}}, "mrope_section"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "short_factor has 1"),
        ({"model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0] * 6}}, "needs long_factor"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "names 1 layers"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 4}, "sliding_window is off"),
        ({"model_type": "qwen2", "layer_types": ["chunked_attention"] * 4}, "chunked_attention"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0"),
        (
            {"model_type": "mistral", "layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2},
            "mixes layers, which mistral",
        ),
        ({"model_type": "gemma2", "hidden_activation": "relu"}, "hidden_activation is 'relu'"),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "gemma3", "text_config": {}}, "gemma3_text"),
        ({"model_type": "mixtral", "num_local_experts": 0}, "num_local_experts is 0"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "num_experts_per_tok is None"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "is 3, of 2 experts"),
        ({"model_type": "qwen3_moe", "num_experts": 2, "num_experts_per_tok": 1}, "moe_intermediate_size is None"),
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


def test_a_stretched_context_may_be_served_and_names_the_rotation() -> None:
    """YaRN holds for its whole stretch; dynamic rotation changes with the length, so that it has to be asked for."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert ModelConfig.from_dict(raw(rope_scaling=yarn)).max_position == 512
    dynamic = ModelConfig.from_dict(raw(rope_scaling={"rope_type": "dynamic", "factor": 4.0}))
    assert EngineConfig(Path()).model_len(dynamic) == 256
    assert EngineConfig(Path(), max_model_len=1024).model_len(dynamic) == 1024
    with pytest.raises(ValueError, match="1024 positions"):
        EngineConfig(Path(), max_model_len=1025).model_len(dynamic)
    assert dynamic.position_scheme(100) == dynamic.position_scheme(256) != dynamic.position_scheme(257)
    assert ModelConfig.from_dict(raw()).position_scheme(100) == ModelConfig.from_dict(raw()).position_scheme(256)
    factors = {"short_factor": [1.0] * 6, "long_factor": [2.0] * 6, "original_max_position_embeddings": 64}
    longrope = ModelConfig.from_dict(raw("phi3", rope_scaling={"type": "su", **factors}))
    assert longrope.position_scheme(64) == longrope.position_scheme(1) != longrope.position_scheme(65)
    local = ModelConfig.from_dict(raw("gemma3_text", rope_local_base_freq=7.0))
    assert local.position_scheme(64) != ModelConfig.from_dict(raw("gemma3_text")).position_scheme(64)
