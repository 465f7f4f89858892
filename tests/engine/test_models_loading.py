"""Loading: every tensor finds its place, and one that is missing, unused or misshapen fails the load by its name."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.models import loading
from engine.models.layers import Linear, Projection
from engine.models.loading import CheckpointError, load_decoder
from tests.engine.checkpoints import build_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_checkpoint(tmp_path, "qwen3", num_hidden_layers=2)
    return tmp_path


def weight_of(projection: Projection) -> torch.Tensor:
    """The weight of a projection that was not converted."""
    assert isinstance(projection, Linear)
    return projection.weight


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of the checkpoint; None removes one. A double underscore stands for a dot."""
    path = folder / "model.safetensors"
    content = load_file(path)
    for name, tensor in tensors.items():
        name = name.replace("__", ".")
        if tensor is None:
            del content[name]
        else:
            content[name] = tensor
    save_file(content, path)


def test_fused_weights_hold_the_parts_in_order(folder: Path) -> None:
    decoder, saved = load_decoder(folder, torch.float32), load_file(folder / "model.safetensors")
    attention = [saved[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(weight_of(decoder.layers[1].qkv), torch.cat(attention))
    mlp = [saved[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    gate_up, _ = decoder.layers[0].mlp.projections
    assert torch.equal(weight_of(gate_up), torch.cat(mlp))
    assert decoder.n_parameters == sum(tensor.numel() for tensor in saved.values())


def test_shards_load_like_a_single_file(tmp_path: Path) -> None:
    for name, size in (("one", "1GB"), ("many", "60KB")):
        build_checkpoint(tmp_path / name, max_shard_size=size)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    one, many = (load_decoder(tmp_path / name, torch.float32) for name in ("one", "many"))
    assert torch.equal(weight_of(one.head), weight_of(many.head))
    assert all(torch.equal(weight_of(a.qkv), weight_of(b.qkv)) for a, b in zip(one.layers, many.layers, strict=True))


def test_a_model_that_is_quantised_never_lies_in_memory_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_checkpoint(tmp_path, "qwen3", num_hidden_layers=6)
    matrices, most, allocate = weakref.WeakSet[torch.Tensor](), 0, loading._empty

    def watched(meta: torch.Tensor, device: torch.device) -> torch.Tensor:
        matrix = allocate(meta, device)
        matrices.add(matrix)
        return matrix

    def convert(linear: Linear) -> Projection:
        nonlocal most
        most = max(most, len(matrices))
        return Linear(linear.weight[:1].clone())

    monkeypatch.setattr(loading, "_empty", watched)
    load_decoder(tmp_path, torch.float32, convert=convert)
    assert most <= 6, "the embedding, the linears that are being filled, and the one that was converted last"


def test_weights_are_cast_to_the_dtype_asked_for(folder: Path) -> None:
    decoder = load_decoder(folder, torch.bfloat16)
    assert all(weight_of(projection).dtype == torch.bfloat16 for projection in decoder.projections)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder, model__layers__1__mlp__up_proj__weight=None)
    with pytest.raises(CheckpointError, match=r"missing.*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_decoder(folder, torch.float32)


def test_an_unused_tensor_is_named(folder: Path) -> None:
    change(folder, model__layers__0__self_attn__q_proj__bias=torch.zeros(64))
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.self_attn\.q_proj\.bias has no place"):
        load_decoder(folder, torch.float32)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path) -> None:
    change(folder, model__norm__weight=torch.zeros(63))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has shape \[63\].*\[64\]"):
        load_decoder(folder, torch.float32)


def test_a_tied_head_may_be_saved_twice_but_not_differ(tmp_path: Path) -> None:
    build_checkpoint(tmp_path, tie_word_embeddings=True)
    embedding = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    change(tmp_path, lm_head__weight=embedding.clone())
    decoder = load_decoder(tmp_path, torch.float32)
    assert weight_of(decoder.head) is decoder.embedding
    change(tmp_path, lm_head__weight=embedding + 1)
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load_decoder(tmp_path, torch.float32)


def test_saved_rotary_frequencies_are_passed_over(folder: Path) -> None:
    change(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.zeros(8))
    load_decoder(folder, torch.float32)


def test_files_that_are_absent_broken_or_elsewhere_are_named(folder: Path) -> None:
    weights, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    for content, named in ((b"\x00" * 20, "not a readable safetensors"), (None, "holds neither")):
        if content is None:
            weights.unlink()
        else:
            weights.write_bytes(content)
        with pytest.raises((CheckpointError, FileNotFoundError), match=named):
            load_decoder(folder, torch.float32)
    for written, named in (
        ("{}", "weight_map"),
        (json.dumps({"weight_map": {"x": "gone.safetensors"}}), r"gone\.safetensors"),
        (json.dumps({"weight_map": {"x": "../../etc/passwd"}}), "passwd"),
    ):
        index.write_text(written)
        with pytest.raises(CheckpointError, match=named):
            load_decoder(folder, torch.float32)


@pytest.mark.parametrize(("family", "n_per_layer"), [("qwen3", 4), ("phi3", 4), ("qwen2_moe", 2 + 1 + 5 * 2 + 3)])
def test_a_linear_is_converted_once_it_is_whole(family: str, n_per_layer: int, tmp_path: Path) -> None:
    build_checkpoint(tmp_path, family)
    plain, seen = load_decoder(tmp_path, torch.float32), list[Linear]()

    def halve(linear: Linear) -> Projection:
        seen.append(linear)
        return Linear(linear.weight / 2, linear.bias)

    halved = load_decoder(tmp_path, torch.float32, convert=halve)
    assert len(seen) == len(list(plain.projections)) == n_per_layer * len(plain.layers) + 1
    assert sum(linear.keeps_precision for linear in seen) == (2 * len(plain.layers) if family == "qwen2_moe" else 0)
    for one, other in zip(plain.projections, halved.projections, strict=True):
        assert torch.equal(weight_of(one), 2 * weight_of(other))
