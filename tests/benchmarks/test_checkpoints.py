"""The random checkpoints: real models of the shape that is asked for, in both precisions."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.checkpoints import SHAPES, Shape, build_checkpoint, build_w8a8
from engine.models.loading import load_decoder

TINY = {
    "llama": Shape("llama", 2, 64, 4, 2, 96, 400),
    "qwen2": Shape("qwen2", 2, 64, 4, 2, 96, 400),
}


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shape, Path]:
    shape = TINY[request.param]
    return shape, build_checkpoint(shape, tmp_path_factory.mktemp(request.param) / "bf16", corpus_files=4)


def test_transformers_and_the_engine_load_every_tensor(checkpoint: tuple[Shape, Path]) -> None:
    shape, folder = checkpoint
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert load_decoder(folder, torch.bfloat16).config.n_layers == shape.n_layers
    products = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert products == shape.layer_weights + shape.head_weights


def test_the_tokenizer_has_the_vocabulary_and_spells_every_byte(checkpoint: tuple[Shape, Path]) -> None:
    shape, folder = checkpoint
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == shape.vocab_size
    text = '{"a": "é🙂"}\n'
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_files_do_not_teach_is_padded(tmp_path: Path) -> None:
    folder = build_checkpoint(Shape("llama", 1, 8, 2, 1, 8, 5_000), tmp_path / "bf16", corpus_files=1)
    assert len(AutoTokenizer.from_pretrained(folder)) == 5_000


def test_rounded_weights_are_within_half_a_step_of_the_checkpoint(checkpoint: tuple[Shape, Path]) -> None:
    _, folder = checkpoint
    rounded_folder = build_w8a8(folder, folder.parent / "w8a8")
    rounded, exact = load_file(rounded_folder / "model.safetensors"), load_file(folder / "model.safetensors")
    ignored = json.loads((rounded_folder / "config.json").read_text())["quantization_config"]["ignore"]
    assert ignored == ["lm_head"]
    for name, tensor in exact.items():
        if not name.endswith("_proj.weight"):
            assert torch.equal(rounded[name], tensor)
            continue
        assert rounded[name].dtype == torch.int8
        step = rounded[f"{name}_scale"].float()
        assert ((rounded[name] * step - tensor.float()).abs() <= step * 0.5001).all()


def test_shape_s_has_the_parameters_that_its_figures_name() -> None:
    assert round((SHAPES["S"].layer_weights + SHAPES["S"].head_weights) / 1e6, -1) == 390
