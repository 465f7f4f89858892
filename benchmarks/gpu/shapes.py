"""The models that are measured, by what their config.json says: for our decoder and for transformers alike."""

from dataclasses import dataclass
from typing import Any

from engine.models.config import ModelConfig

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True, slots=True)
class Shape:
    """full: a published model's config.json, as far as it decides speed. toy: the same family, tiny."""

    full: dict[str, Any]
    toy: dict[str, Any]

    def raw(self, *, is_toy: bool) -> dict[str, Any]:
        """What config.json would say."""
        return self.toy if is_toy else self.full

    def config(self, *, is_toy: bool) -> ModelConfig:
        """For our decoder."""
        return ModelConfig.from_dict(self.raw(is_toy=is_toy))


_LLAMA_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
_COMMON = {"hidden_act": "silu", "max_position_embeddings": 40_960, "bos_token_id": 0, "eos_token_id": 1}
_TOY = _COMMON | {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 48, "vocab_size": 160, "max_position_embeddings": 4096,
}  # fmt: skip
_LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_parameters": _LLAMA_ROPE}
_QWEN3 = {
    "model_type": "qwen3", "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}  # fmt: skip


def _qwen3(hidden: int, middle: int) -> Shape:
    full = {
        "hidden_size": hidden, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": middle, "vocab_size": 151_936,
    }  # fmt: skip
    return Shape(_COMMON | _QWEN3 | full, _TOY | _QWEN3)


SHAPES = {
    "llama-8b": Shape(
        _COMMON
        | _LLAMA
        | {
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "intermediate_size": 14_336, "vocab_size": 128_256,
        },
        _TOY | _LLAMA,
    ),
    "qwen3-0.6b": _qwen3(1024, 3072),
    "qwen3-1.7b": _qwen3(2048, 6144),
}  # fmt: skip
