"""Which tensors of a checkpoint fill which weights of a decoder, by the names that transformers saves."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.models.config import ModelConfig
from engine.models.decoder import Decoder
from engine.models.experts import Experts
from engine.models.family import FAMILIES
from engine.models.layers import DecoderLayer, GatedMlp, Mlp


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the checkpoint without its `.weight` or `.bias`, and how many rows of the whole it fills."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Place:
    """A weight of the decoder: the attribute of an object, a vector or a linear, and what fills it, in order."""

    holder: object
    attribute: str
    parts: tuple[Part, ...]


def places_of(decoder: Decoder) -> Iterator[Place]:
    """Every weight but the embedding, and a tied head."""
    config = decoder.config
    yield Place(decoder, "final_norm", (Part("model.norm", config.hidden_size),))
    if not config.is_tied:
        yield Place(decoder, "head", (Part("lm_head", config.vocab_size),))
    for index, layer in enumerate(decoder.layers):
        yield from _of_layer(layer, config, f"model.layers.{index}.")


def _of_layer(layer: DecoderLayer, config: ModelConfig, prefix: str) -> Iterator[Place]:
    hidden = config.hidden_size
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    mlp_norm = "pre_feedforward_layernorm" if config.has_post_norms else "post_attention_layernorm"
    for attribute, name in (
        ("input_norm", "input_layernorm"),
        ("attention_post_norm", "post_attention_layernorm"),
        ("mlp_norm", mlp_norm),
        ("mlp_post_norm", "post_feedforward_layernorm"),
        ("q_norm", "self_attn.q_norm"),
        ("k_norm", "self_attn.k_norm"),
    ):
        weight: torch.Tensor | None = getattr(layer, attribute)
        if weight is not None:
            yield Place(layer, attribute, (Part(prefix + name, len(weight)),))
    attention = prefix + "self_attn."
    if FAMILIES[config.family].is_fused:
        yield Place(layer, "qkv", (Part(attention + "qkv_proj", config.qkv_size),))
    else:
        sizes = {"q_proj": query, "k_proj": key, "v_proj": key}
        yield Place(layer, "qkv", tuple(Part(attention + name, rows) for name, rows in sizes.items()))
    yield Place(layer, "output", (Part(attention + "o_proj", hidden),))
    yield from _of_mlp(layer.mlp, config, prefix)


def _of_mlp(mlp: Mlp, config: ModelConfig, prefix: str) -> Iterator[Place]:
    hidden, size = config.hidden_size, config.intermediate_size
    if isinstance(mlp, GatedMlp):
        if FAMILIES[config.family].is_fused:
            yield Place(mlp, "gate_up", (Part(f"{prefix}mlp.gate_up_proj", 2 * size),))
            yield Place(mlp, "down", (Part(f"{prefix}mlp.down_proj", hidden),))
        else:
            yield from _of_gated(mlp, prefix + "mlp.", ("gate_proj", "up_proj", "down_proj"), size, hidden)
    if not isinstance(mlp, Experts) or config.experts is None:
        return
    is_mixtral = FAMILIES[config.family].experts == "mixtral"
    block = prefix + ("block_sparse_moe." if is_mixtral else "mlp.")
    names = ("w1", "w3", "w2") if is_mixtral else ("gate_proj", "up_proj", "down_proj")
    yield Place(mlp, "router", (Part(block + "gate", config.experts.n_experts),))
    for index, expert in enumerate(mlp.experts):
        yield from _of_gated(expert, f"{block}experts.{index}.", names, config.experts.intermediate_size, hidden)
    if mlp.shared is not None and config.experts.shared_size is not None:
        yield from _of_gated(mlp.shared, f"{block}shared_expert.", names, config.experts.shared_size, hidden)
        yield Place(mlp, "shared_gate", (Part(f"{block}shared_expert_gate", 1),))


def _of_gated(mlp: GatedMlp, prefix: str, names: tuple[str, str, str], size: int, hidden: int) -> Iterator[Place]:
    gate, up, down = names
    yield Place(mlp, "gate_up", (Part(prefix + gate, size), Part(prefix + up, size)))
    yield Place(mlp, "down", (Part(prefix + down, hidden),))
