"""From a checkpoint folder to a decoder in memory. Every tensor of the files is used exactly once, or the load fails by
name."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from engine.models.config import ModelConfig
from engine.models.decoder import Decoder
from engine.models.layers import DecoderLayer, Linear, Projection

Convert = Callable[[Linear], Projection]
"""Gives a linear that has all its weights another form: quantised, packed, tiled."""


class CheckpointError(ValueError):
    """The files do not hold exactly this model's tensors; the message names the tensor."""


@dataclass(slots=True)
class _Slot:
    """A linear that is being filled. holder, name: the object and its attribute that the linear is to be; n_missing:
    tensors of the checkpoint that are still to come."""

    holder: Decoder | DecoderLayer
    name: str
    linear: Linear
    n_missing: int = 0

    def count_down(self, convert: Convert) -> None:
        self.n_missing -= 1
        if self.n_missing == 0:
            setattr(self.holder, self.name, convert(self.linear))


@dataclass(frozen=True, slots=True)
class _Target:
    """Where one tensor of the checkpoint goes: a weight, or a part of one."""

    tensor: torch.Tensor
    slot: _Slot | None = None


def load_decoder(
    folder: Path | str, dtype: torch.dtype, device: torch.device | str = "cpu", convert: Convert | None = None
) -> Decoder:
    """Read a model: shapes first, on the meta device, then each tensor straight into its place in the fused weights.

    convert: what each linear becomes as soon as it is whole, so that a quantised model never lies in memory unquantised
    (None: it stays as it is). A tied head shares its weight with the embedding unless convert gives it one of its own.

    Raises FileNotFoundError without config.json or safetensors files, ValueError for an unsupported configuration,
    CheckpointError for a missing, unused or misshapen tensor.
    """
    folder = Path(folder)
    decoder = Decoder(ModelConfig.from_folder(folder), dtype)
    convert = convert or _keep
    targets = _allocate(decoder, torch.device(device))
    decoder.n_parameters = sum(target.tensor.numel() for target in targets.values())
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
        if target.tensor.shape != tensor.shape:
            asked = list(target.tensor.shape)
            raise CheckpointError(f"{name} has shape {list(tensor.shape)}, config.json asks for {asked}")
        target.tensor.copy_(tensor)
        if target.slot is not None:
            target.slot.count_down(convert)
    if targets:
        raise CheckpointError(f"missing from the checkpoint: {', '.join(sorted(targets))}")
    if saved_tied_head is not None and not torch.equal(saved_tied_head, decoder.embedding):
        raise CheckpointError(
            "lm_head.weight differs from the embedding: set tie_word_embeddings to false in config.json"
        )
    if decoder.config.is_tied:
        decoder.head = convert(Linear(decoder.embedding))
    return decoder


def _keep(linear: Linear) -> Projection:
    return linear


def _allocate(decoder: Decoder, device: torch.device) -> dict[str, _Target]:
    """Give every weight memory; returns checkpoint names to the (slices of) weights that they fill."""
    config = decoder.config

    def vector(meta: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(meta, device=device)

    decoder.embedding, decoder.final_norm = vector(decoder.embedding), vector(decoder.final_norm)
    decoder.inv_freq = decoder.inv_freq.to(device)
    targets = {
        "model.embed_tokens.weight": _Target(decoder.embedding),
        "model.norm.weight": _Target(decoder.final_norm),
    }
    if not config.is_tied:
        head = Linear(torch.empty(config.vocab_size, config.hidden_size, device=device, dtype=decoder.dtype))
        targets["lm_head.weight"] = _Target(head.weight, _Slot(decoder, "head", head, 1))
    for index, layer in enumerate(decoder.layers):
        for name, target in _allocate_layer(layer, config, device, decoder.dtype):
            targets[f"model.layers.{index}.{name}"] = target
    return targets


def _allocate_layer(
    layer: DecoderLayer, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, _Target]]:
    """Allocate the weights of one layer, yielding (name within the layer, the part of a weight that it fills)."""
    layer.input_norm = torch.empty_like(layer.input_norm, device=device)
    layer.mlp_norm = torch.empty_like(layer.mlp_norm, device=device)
    yield "input_layernorm.weight", _Target(layer.input_norm)
    yield "post_attention_layernorm.weight", _Target(layer.mlp_norm)
    if layer.q_norm is not None and layer.k_norm is not None:
        layer.q_norm = torch.empty_like(layer.q_norm, device=device)
        layer.k_norm = torch.empty_like(layer.k_norm, device=device)
        yield "self_attn.q_norm.weight", _Target(layer.q_norm)
        yield "self_attn.k_norm.weight", _Target(layer.k_norm)
    hidden, middle = config.hidden_size, config.intermediate_size
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    for name, n_in, has_bias, parts in (
        (
            "qkv",
            hidden,
            config.has_qkv_bias,
            {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": key},
        ),
        ("output", query, config.has_output_bias, {"self_attn.o_proj": hidden}),
        ("gate_up", hidden, config.has_mlp_bias, {"mlp.gate_proj": middle, "mlp.up_proj": middle}),
        ("down", middle, config.has_mlp_bias, {"mlp.down_proj": hidden}),
    ):
        n_out = sum(parts.values())
        weight = torch.empty(n_out, n_in, device=device, dtype=dtype)
        linear = Linear(weight, torch.empty(n_out, device=device, dtype=dtype) if has_bias else None)
        slot = _Slot(layer, name, linear, len(parts) * (1 + has_bias))
        first = 0
        for part, size in parts.items():
            yield f"{part}.weight", _Target(weight[first : first + size], slot)
            if linear.bias is not None:
                yield f"{part}.bias", _Target(linear.bias[first : first + size], slot)
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
