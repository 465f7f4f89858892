"""From a checkpoint folder to a decoder in memory. Every tensor of the files is used exactly once, or the load fails by
name."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from engine.models.config import ModelConfig
from engine.models.decoder import Decoder
from engine.models.layers import DecoderLayer, Linear


class CheckpointError(ValueError):
    """The files do not hold exactly this model's tensors; the message names the tensor."""


def load_decoder(folder: Path | str, dtype: torch.dtype, device: torch.device | str = "cpu") -> Decoder:
    """Read a model: shapes first, on the meta device, then each tensor straight into its place in the fused weights.

    Raises FileNotFoundError without config.json or safetensors files, ValueError for an unsupported configuration,
    CheckpointError for a missing, unused or misshapen tensor.
    """
    folder = Path(folder)
    decoder = Decoder(ModelConfig.from_folder(folder), dtype)
    targets = _allocate(decoder, torch.device(device))
    saved_tied_head: torch.Tensor | None = None
    for name, tensor in _read_tensors(folder):
        if name.endswith("rotary_emb.inv_freq"):  # checkpoints of 2023 carry this; it follows from the configuration
            continue
        if name == "lm_head.weight" and decoder.config.is_tied:  # some tools save the tied head a second time
            saved_tied_head = tensor.to(device, dtype)
            continue
        target = targets.pop(name, None)
        if target is None:
            raise CheckpointError(f"{name} has no place in a {decoder.config.family} decoder with this config.json")
        if target.shape != tensor.shape:
            raise CheckpointError(f"{name} has shape {list(tensor.shape)}, config.json asks for {list(target.shape)}")
        target.copy_(tensor)
    if targets:
        raise CheckpointError(f"missing from the checkpoint: {', '.join(sorted(targets))}")
    if saved_tied_head is not None and not torch.equal(saved_tied_head, decoder.embedding):
        raise CheckpointError(
            "lm_head.weight differs from the embedding: set tie_word_embeddings to false in config.json"
        )
    return decoder


def _allocate(decoder: Decoder, device: torch.device) -> dict[str, torch.Tensor]:
    """Give every weight memory; returns checkpoint names to the (slices of) weights that they fill."""
    config = decoder.config

    def vector(meta: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(meta, device=device)

    targets: dict[str, torch.Tensor] = {}
    decoder.embedding = targets["model.embed_tokens.weight"] = vector(decoder.embedding)
    decoder.final_norm = targets["model.norm.weight"] = vector(decoder.final_norm)
    decoder.inv_freq = decoder.inv_freq.to(device)
    if config.is_tied:
        decoder.head = Linear(decoder.embedding)
    else:
        decoder.head = Linear(vector(decoder.head.weight))
        targets["lm_head.weight"] = decoder.head.weight
    for index, layer in enumerate(decoder.layers):
        targets.update({f"model.layers.{index}.{name}": part for name, part in _allocate_layer(layer, config, device)})
    return targets


def _allocate_layer(
    layer: DecoderLayer, config: ModelConfig, device: torch.device
) -> Iterator[tuple[str, torch.Tensor]]:
    """Allocate the weights of one layer, yielding (name within the layer, the part of a weight that it fills)."""
    layer.input_norm = torch.empty_like(layer.input_norm, device=device)
    layer.mlp_norm = torch.empty_like(layer.mlp_norm, device=device)
    yield "input_layernorm.weight", layer.input_norm
    yield "post_attention_layernorm.weight", layer.mlp_norm
    if layer.q_norm is not None and layer.k_norm is not None:
        layer.q_norm = torch.empty_like(layer.q_norm, device=device)
        layer.k_norm = torch.empty_like(layer.k_norm, device=device)
        yield "self_attn.q_norm.weight", layer.q_norm
        yield "self_attn.k_norm.weight", layer.k_norm
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    for linear, parts in (
        (layer.qkv, (("self_attn.q_proj", query), ("self_attn.k_proj", key), ("self_attn.v_proj", key))),
        (layer.output, (("self_attn.o_proj", config.hidden_size),)),
        (layer.gate_up, (("mlp.gate_proj", config.intermediate_size), ("mlp.up_proj", config.intermediate_size))),
        (layer.down, (("mlp.down_proj", config.hidden_size),)),
    ):
        linear.weight = torch.empty_like(linear.weight, device=device)
        if linear.bias is not None:
            linear.bias = torch.empty_like(linear.bias, device=device)
        first = 0
        for name, size in parts:
            yield f"{name}.weight", linear.weight[first : first + size]
            if linear.bias is not None:
                yield f"{name}.bias", linear.bias[first : first + size]
            first += size


def _read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of `model.safetensors`, or of the shards that `model.safetensors.index.json` names, one at a
    time."""
    single, index_path = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index_path.is_file():
        try:
            weight_map: dict[str, str] = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{index_path.name} has no readable weight_map: fetch the checkpoint again"
            ) from error
        files = [folder / name for name in dict.fromkeys(weight_map.values())]
    elif single.is_file():
        files = [single]
    else:
        raise FileNotFoundError(f"{folder} holds neither model.safetensors nor model.safetensors.index.json")
    for path in files:
        if path.parent.resolve() != folder.resolve() or not path.is_file():
            raise CheckpointError(f"{index_path.name} names {path.name}, which is not in {folder}")
        try:
            with safe_open(path, framework="pt") as shard:
                for name in shard.keys():  # noqa: SIM118 - a safetensors file is not a mapping
                    yield name, shard.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path.name} is not a readable safetensors file: {error}") from error
