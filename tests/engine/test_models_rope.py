"""Rotary frequencies against transformers, over a grid of configurations."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3TextConfig, LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.models.config import ModelConfig
from engine.models.rope import rope_frequencies

MAX_POSITION = 4096
HEAD_DIMS = (16, 64, 96, 128)
SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITION,
}
factors = st.sampled_from([1.0, 1.5, 4.0, 32.0])
originals = st.sampled_from([128, 1024, 4096, 8192])


def optional(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


def kind(name: str, required: dict[str, Any], **values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    chosen = st.fixed_dictionaries({"rope_theta": st.sampled_from([500.0, 10_000.0, 1e6]), **required})
    return st.tuples(chosen, optional(**values)).map(lambda pair: {"rope_type": name, **pair[0], **pair[1]})


ROPES = st.one_of(
    kind("linear", {"factor": factors}),
    kind("dynamic", {"factor": factors}),
    kind(
        "llama3",
        {
            "factor": factors,
            "low_freq_factor": st.sampled_from([1.0, 1.5]),
            "high_freq_factor": st.sampled_from([3.0, 4.0]),
        },
        original_max_position_embeddings=originals,
    ),
    kind(
        "yarn",
        {"factor": factors, "original_max_position_embeddings": originals},
        beta_fast=st.sampled_from([16.0, 32.0]),
        beta_slow=st.sampled_from([1.0, 2.0]),
        truncate=st.booleans(),
        attention_factor=st.sampled_from([0.7, 1.0]),
        mscale=st.sampled_from([0.707, 1.0]),
        mscale_all_dim=st.sampled_from([0.5, 1.0]),
    ),
)


@given(ROPES, st.sampled_from(HEAD_DIMS), st.sampled_from([1, MAX_POSITION, MAX_POSITION + 1, 9999]))
def test_frequencies_equal_transformers_in_the_old_and_the_new_spelling(
    rope: dict[str, Any], head_dim: int, max_model_len: int
) -> None:
    reference = LlamaConfig(**SIZES, head_dim=head_dim, rope_parameters=dict(rope))
    expected, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](reference, torch.device("cpu"), seq_len=max_model_len)
    scaling = {("type" if key == "rope_type" else key): value for key, value in rope.items() if key != "rope_theta"}
    raw = {"model_type": "llama", **SIZES, "head_dim": head_dim}
    for written in (
        raw | {"rope_parameters": rope},
        raw | {"rope_scaling": scaling, "rope_theta": rope["rope_theta"]},
    ):
        config = ModelConfig.from_dict(written)
        inv_freq, scale = rope_frequencies(config.rope, head_dim, max_model_len)
        torch.testing.assert_close(inv_freq, expected, rtol=2e-6, atol=0)
        assert scale == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("family_keys", [{}, {"factor": 3.0}, {"attention_factor": 1.25}])
@pytest.mark.parametrize("max_model_len", [100, 1024, 1025, MAX_POSITION])
@pytest.mark.parametrize("name", ["longrope", "su"])
def test_longrope_takes_the_list_that_the_length_of_the_engine_asks_for(
    family_keys: dict[str, float], max_model_len: int, name: str
) -> None:
    scaling = {
        "type": name,
        "short_factor": [1.0 + i / 8 for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)],
        **family_keys,
    }
    written = {"model_type": "phi3", **SIZES, "rope_scaling": scaling, "original_max_position_embeddings": 1024}
    reference = Phi3Config(
        **SIZES, rope_parameters={**scaling, "rope_type": "longrope"}, original_max_position_embeddings=1024
    )
    expected, factor = ROPE_INIT_FUNCTIONS["longrope"](reference, torch.device("cpu"), seq_len=max_model_len)
    inv_freq, scale = rope_frequencies(ModelConfig.from_dict(written).rope, 16, max_model_len)
    torch.testing.assert_close(inv_freq, expected, rtol=2e-6, atol=0)
    assert scale == pytest.approx(factor, rel=1e-12)


def test_layers_with_a_window_have_a_rotation_of_their_own_in_both_spellings() -> None:
    old = {"rope_theta": 5_000.0, "rope_local_base_freq": 300.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = Gemma3TextConfig(**SIZES, head_dim=16, **old).to_dict()
    for written in ({"model_type": "gemma3_text", **SIZES, "head_dim": 16, **old}, new):
        config = ModelConfig.from_dict(written)
        assert config.local_rope is not None
        assert (config.rope.kind, config.rope.theta, config.rope.factor) == ("linear", 5_000.0, 8.0)
        assert (config.local_rope.kind, config.local_rope.theta) == ("default", 300.0)
