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
from engine.models.layers import Linear, Projection
from engine.models.names import Place, places_of
from kernels import huge_pages

Convert = Callable[[Linear], Projection]
"""Gives a linear that has all its weights another form: packed, tiled, or quantised unless it keeps its precision."""
RANDOM_STD = 0.02
"""Of random_decoder, and about that of a fresh initialisation."""


class CheckpointError(ValueError):
    """The files do not hold exactly this model's tensors; the message names the tensor."""


@dataclass(slots=True)
class _Slot:
    """A linear that is being filled, on the meta device until its first tensor comes. n_missing: tensors of the
    checkpoint that are still to come."""

    place: Place
    linear: Linear
    device: torch.device
    n_missing: int

    def give_memory(self) -> Linear:
        """The linear with its memory. A GPU's is taken when it is asked for, and what will be quantised would need more
        of it all at once than what it becomes."""
        linear = self.linear
        if linear.weight.is_meta:
            bias = None if linear.bias is None else torch.empty_like(linear.bias, device=self.device)
            self.linear = Linear(_empty(linear.weight, self.device), bias, linear.keeps_precision)
        return self.linear

    def count_down(self, convert: Convert) -> None:
        self.n_missing -= 1
        if self.n_missing == 0:
            setattr(self.place.holder, self.place.attribute, convert(self.linear))


@dataclass(frozen=True, slots=True)
class _Target:
    """Where one tensor of the checkpoint goes: a weight, or some rows of a slot's weight or bias, whose shape `tensor`
    has. offset: what is added to it."""

    tensor: torch.Tensor
    slot: _Slot | None = None
    rows: slice | None = None
    is_bias: bool = False
    offset: float = 0.0

    def memory(self) -> torch.Tensor:
        """What is to be written to."""
        if self.slot is None or self.rows is None:
            return self.tensor
        linear = self.slot.give_memory()
        whole = linear.bias if self.is_bias and linear.bias is not None else linear.weight
        return whole[self.rows]

    def fill(self, saved: torch.Tensor) -> None:
        self.memory().copy_(saved.float() + self.offset if self.offset else saved)


def load_decoder(
    folder: Path | str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    convert: Convert | None = None,
    max_model_len: int | None = None,
) -> Decoder:
    """Read a model: shapes first, on the meta device, then each tensor straight into its place in the fused weights.

    convert: what each linear becomes as soon as it is whole, so that a quantised model never lies in memory unquantised
    (None: it stays as it is). A tied head shares its weight with the embedding unless convert gives it one of its own.
    max_model_len: positions that will be served, which some rotations depend on (None: the model's own).

    Raises FileNotFoundError without config.json or safetensors files, ValueError for an unsupported configuration,
    CheckpointError for a missing, unused or misshapen tensor.
    """
    folder = Path(folder)
    convert = convert or _keep
    decoder, targets = _blank(ModelConfig.from_folder(folder), dtype, torch.device(device), max_model_len)
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
        target.fill(tensor)
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


def random_decoder(
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    convert: Convert | None = None,
    max_model_len: int | None = None,
    seed: int = 0,
) -> Decoder:
    """A model of this shape without a checkpoint, its weights drawn on the device: a speed does not depend on what they
    say. Matrices and biases are normal with RANDOM_STD, norms 1. The other arguments are those of load_decoder."""
    device, convert = torch.device(device), convert or _keep
    decoder, targets = _blank(config, dtype, device, max_model_len)
    generator = torch.Generator(device).manual_seed(seed)
    for name in list(targets):
        target = targets.pop(name)  # so that a weight that was converted is held by nothing any more
        is_norm = target.slot is None and target.tensor.dim() == 1
        if is_norm:
            target.tensor.fill_(1.0)
        else:
            target.memory().normal_(std=RANDOM_STD, generator=generator)
        if target.slot is not None:
            target.slot.count_down(convert)
    if config.is_tied:
        decoder.head = convert(Linear(decoder.embedding))
    return decoder


def _blank(
    config: ModelConfig, dtype: torch.dtype, device: torch.device, max_model_len: int | None
) -> tuple[Decoder, dict[str, _Target]]:
    """A decoder whose weights have no contents, and by checkpoint name what is to be filled."""
    decoder = Decoder(config, dtype, config.max_position if max_model_len is None else max_model_len)
    targets = _allocate(decoder, device)
    decoder.n_parameters = sum(target.tensor.numel() for target in targets.values())
    return decoder, targets


def _keep(linear: Linear) -> Projection:
    return linear


def _allocate(decoder: Decoder, device: torch.device) -> dict[str, _Target]:
    """Give embedding and vectors memory; returns checkpoint names to the (slices of) weights that they fill."""
    decoder.embedding = _empty(decoder.embedding, device)
    decoder.ropes = [(inv_freq.to(device), factor) for inv_freq, factor in decoder.ropes]
    targets = {"model.embed_tokens.weight": _Target(decoder.embedding)}
    for place in places_of(decoder):
        weight = getattr(place.holder, place.attribute)
        if isinstance(weight, torch.Tensor):
            vector = torch.empty_like(weight, device=device)
            setattr(place.holder, place.attribute, vector)
            targets[f"{place.parts[0].name}.weight"] = _Target(vector, offset=decoder.config.norm_offset)
        else:
            targets.update(_linear_targets(place, weight, device))
    return targets


def _linear_targets(place: Place, meta: Linear, device: torch.device) -> Iterator[tuple[str, _Target]]:
    """Yields (name, the rows that it fills)."""
    slot = _Slot(place, meta, device, len(place.parts) * (1 + (meta.bias is not None)))
    first = 0
    for part in place.parts:
        rows = slice(first, first + part.rows)
        yield f"{part.name}.weight", _Target(meta.weight[rows], slot, rows)
        if meta.bias is not None:
            yield f"{part.name}.bias", _Target(meta.bias[rows], slot, rows, is_bias=True)
        first += part.rows


def _empty(meta: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Memory for a matrix of weights."""
    return huge_pages.empty(meta.shape, meta.dtype) if device.type == "cpu" else torch.empty_like(meta, device=device)


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
