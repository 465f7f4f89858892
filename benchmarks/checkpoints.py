"""Checkpoints with real shapes and random weights, for measuring speed alone.

A speed does not depend on what the weights say, so nothing has to be fetched. The tokenizer is real: byte-level BPE
learnt from the sources of Python's standard library, so that masks and JSON cost what they cost with a model of that
vocabulary. It learns at most 32,000 tokens; larger vocabularies are padded with tokens that no text contains.
"""

import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

END = "<|endoftext|>"
LEARNT_TOKENS = 32_000
CORPUS_FILES = 500
INITIAL_STD = 0.02
MAX_POSITION = 4096


@dataclass(frozen=True, slots=True)
class Shape:
    """One decoder: widths in numbers, vocabulary in tokens. The head is tied to the embedding."""

    family: Literal["llama", "qwen2"]
    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    intermediate_size: int
    vocab_size: int

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.n_heads

    @property
    def layer_weights(self) -> int:
        """Weights of all layers' products, without biases and norms: what every step reads."""
        attention = 2 * self.hidden_size * self.head_dim * (self.n_heads + self.n_kv_heads)
        return self.n_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def head_weights(self) -> int:
        """Weights of the product that makes logits, which is also the embedding."""
        return self.vocab_size * self.hidden_size


SHAPES = {
    "S": Shape("qwen2", 24, 896, 14, 2, 4864, 32_000),
    "M": Shape("llama", 30, 576, 9, 3, 1536, 8_192),
    "T": Shape("llama", 8, 384, 6, 2, 1024, 8_192),
    "1B": Shape("llama", 16, 2048, 32, 8, 8192, 128_256),
}


def build_checkpoint(shape: Shape, folder: Path, seed: int = 0, corpus_files: int = CORPUS_FILES) -> Path:
    """Write `shape` in bfloat16 with a tokenizer learnt from so many files, as transformers would; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    save_file(dict(_tensors(shape, generator)), folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(shape))
    _write_tokenizer(folder, shape.vocab_size, corpus_files)
    return folder


def build_w8a8(checkpoint: Path, folder: Path) -> Path:
    """The same model in the compressed-tensors format: int8 weights with one scale per output channel, activations
    quantised per token while running. Embedding and head stay bfloat16, as is usual. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor
            continue
        scale = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).to(torch.bfloat16)
        tensors[name] = (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        tensors[f"{name}_scale"] = scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    _write_json(folder / "config.json", config | {"quantization_config": _compressed_tensors()})
    return folder


def _tensors(shape: Shape, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values of a Hugging Face checkpoint."""

    def random(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * INITIAL_STD).to(torch.bfloat16)

    hidden, middle = shape.hidden_size, shape.intermediate_size
    query, key = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    ones = torch.ones(hidden, dtype=torch.bfloat16)
    yield "model.embed_tokens.weight", random(shape.vocab_size, hidden)
    yield "model.norm.weight", ones
    for index in range(shape.n_layers):
        layer = f"model.layers.{index}"
        yield f"{layer}.input_layernorm.weight", ones.clone()
        yield f"{layer}.post_attention_layernorm.weight", ones.clone()
        for name, size in (("q", query), ("k", key), ("v", key)):
            yield f"{layer}.self_attn.{name}_proj.weight", random(size, hidden)
            if shape.family == "qwen2":
                yield f"{layer}.self_attn.{name}_proj.bias", random(size)
        yield f"{layer}.self_attn.o_proj.weight", random(hidden, query)
        yield f"{layer}.mlp.gate_proj.weight", random(middle, hidden)
        yield f"{layer}.mlp.up_proj.weight", random(middle, hidden)
        yield f"{layer}.mlp.down_proj.weight", random(hidden, middle)


def _config(shape: Shape) -> dict[str, Any]:
    """`config.json`."""
    return {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[shape.family]],
        "model_type": shape.family,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": MAX_POSITION,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }


def _compressed_tensors() -> dict[str, Any]:
    """The `quantization_config` of compressed-tensors for W8A8, as its documentation describes the format."""
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
    activations = {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": activations},
        },
    }


def _write_tokenizer(folder: Path, vocab_size: int, corpus_files: int) -> None:
    """Write tokenizer.json and tokenizer_config.json: token 0 ends, then bytes, then what was learnt, then padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab_size, LEARNT_TOKENS),
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*/*.py"))
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in islice(sources, corpus_files))
    tokenizer.train_from_iterator(texts, trainer)
    missing = vocab_size - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|unused {index}|>" for index in range(missing)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "clean_up_tokenization_spaces": False}
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
