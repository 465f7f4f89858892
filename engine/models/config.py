"""What a Hugging Face checkpoint folder says about its model, for the Llama, Mistral, Qwen2 and Qwen3 families, as
plain data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
FAMILIES: tuple[Family, ...] = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary embedding. kind `linear` divides every frequency by factor; `llama3` only the low ones, smoothly (Llama
    3.1)."""

    kind: Literal["default", "linear", "llama3"] = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One decoder as data. windows: per layer how many keys a query sees, itself included (None: all before it)."""

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RopeConfig
    windows: tuple[int | None, ...]
    max_position: int
    is_tied: bool
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_qk_norm: bool
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None

    @classmethod
    def from_folder(cls, path: Path | str) -> "ModelConfig":
        """Read `config.json`, and the end tokens of `generation_config.json` where that is there.

        Raises FileNotFoundError without a config.json, ValueError for what this decoder cannot compute exactly.
        """
        folder = Path(path)
        raw = _read_json(folder / "config.json")
        if raw is None:
            raise FileNotFoundError(f"{folder} holds no config.json: give the folder of a Hugging Face checkpoint")
        return cls.from_dict(raw, _read_json(folder / "generation_config.json") or {})

    @classmethod
    def from_dict(cls, raw: dict[str, Any], generation: dict[str, Any] | None = None) -> "ModelConfig":
        """The same from the two files' contents. Raises ValueError, naming the key that is missing or unsupported."""
        family = _family(raw)
        n_layers, n_heads = _required(raw, "num_hidden_layers"), _required(raw, "num_attention_heads")
        hidden_size = _required(raw, "hidden_size")
        n_kv_heads = raw.get("num_key_value_heads") or n_heads
        if n_heads % n_kv_heads:
            raise ValueError(f"num_attention_heads {n_heads} is no multiple of num_key_value_heads {n_kv_heads}")
        # Qwen3's default is 128 whatever the width (transformers' Qwen3Config); the other families divide.
        head_dim = raw.get("head_dim") or (128 if family == "qwen3" else hidden_size // n_heads)
        if head_dim % 2:
            raise ValueError(f"head_dim is {head_dim}: rotary embedding needs an even one")
        has_attention_bias = bool(raw.get("attention_bias", False)) and family in ("llama", "qwen3")
        return cls(
            family=family,
            vocab_size=_required(raw, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=_required(raw, "intermediate_size"),
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope=_rope(raw),
            windows=_windows(raw, family, n_layers),
            max_position=_required(raw, "max_position_embeddings"),
            is_tied=bool(raw.get("tie_word_embeddings", False)),
            has_qkv_bias=has_attention_bias or family == "qwen2",
            has_output_bias=has_attention_bias,
            has_mlp_bias=bool(raw.get("mlp_bias", False)) and family == "llama",
            has_qk_norm=family == "qwen3",
            eos_token_ids=_end_tokens(raw, generation or {}),
            bos_token_id=raw.get("bos_token_id"),
        )

    @property
    def qkv_size(self) -> int:
        """Width of the fused query, key and value projection."""
        return (self.n_heads + 2 * self.n_kv_heads) * self.head_dim

    def kv_bytes_per_block(self, block_size: int, itemsize: int, n_state_layers: int = 0) -> int:
        """Bytes that one page takes over all layers, with the float32 sums of the pooled hidden states."""
        kv = 2 * self.n_layers * self.n_kv_heads * self.head_dim * block_size * itemsize
        return kv + 4 * n_state_layers * self.hidden_size


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def _required(raw: dict[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {key} is {value!r}, it must be a positive integer")
    return value


def _family(raw: dict[str, Any]) -> Family:
    model_type = raw.get("model_type")
    family = next((name for name in FAMILIES if name == model_type), None)
    if family is None:
        raise ValueError(f"config.json: model_type is {model_type!r}; supported are {', '.join(FAMILIES)}")
    for architecture in raw.get("architectures") or ():
        if not architecture.endswith("ForCausalLM"):
            raise ValueError(
                f"config.json: architecture {architecture!r} does not generate text; use a ForCausalLM checkpoint"
            )
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act is {raw['hidden_act']!r}; only silu is supported")
    if raw.get("quantization_config"):
        raise ValueError("config.json: quantization_config is set; use a checkpoint in bfloat16, float16 or float32")
    return family


def _rope(raw: dict[str, Any]) -> RopeConfig:
    """`rope_scaling` + `rope_theta` (transformers 4) or `rope_parameters` (transformers 5)."""
    options: dict[str, Any] = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind = options.get("rope_type", options.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ValueError(f"config.json: rope type {kind!r} is not supported; default, linear and llama3 are")
    partial = options.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1, 1.0):
        raise ValueError(f"config.json: partial_rotary_factor is {partial}; only full rotation is supported")
    if kind != "default" and "factor" not in options:
        raise ValueError(f"config.json: rope type {kind!r} needs a factor")
    if kind == "llama3" and not {"low_freq_factor", "high_freq_factor"} <= options.keys():
        raise ValueError("config.json: rope type 'llama3' needs low_freq_factor and high_freq_factor")
    return RopeConfig(
        kind=kind,
        theta=float(options.get("rope_theta", raw.get("rope_theta", 10_000.0))),
        factor=float(options.get("factor", 1.0)),
        low_freq_factor=float(options.get("low_freq_factor", 1.0)),
        high_freq_factor=float(options.get("high_freq_factor", 4.0)),
        original_max_position=int(
            options.get("original_max_position_embeddings") or raw.get("max_position_embeddings") or 8192
        ),
    )


def _windows(raw: dict[str, Any], family: Family, n_layers: int) -> tuple[int | None, ...]:
    """Qwen switches the window on with `use_sliding_window`, for `layer_types` or layers from `max_window_layers` on;
    Mistral has it in every layer, 4096 where the key is missing (transformers' MistralConfig)."""
    if family == "llama":
        return (None,) * n_layers
    if family == "mistral":
        return (raw.get("sliding_window", 4096),) * n_layers
    window = raw.get("sliding_window", 4096) if raw.get("use_sliding_window", False) else None
    layer_types = raw.get("layer_types")
    if layer_types is None:
        first = raw.get("max_window_layers", 28)
        return tuple(window if layer >= first else None for layer in range(n_layers))
    unknown = set(layer_types) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ValueError(
            f"config.json: layer_types holds {sorted(unknown)}; full_attention and sliding_attention are supported"
        )
    if len(layer_types) != n_layers:
        raise ValueError(f"config.json: layer_types names {len(layer_types)} layers, num_hidden_layers says {n_layers}")
    if window is None and "sliding_attention" in layer_types:
        raise ValueError(
            "config.json: layer_types has sliding_attention, but use_sliding_window or sliding_window is off"
        )
    return tuple(window if kind == "sliding_attention" else None for kind in layer_types)


def _end_tokens(raw: dict[str, Any], generation: dict[str, Any]) -> tuple[int, ...]:
    """The end tokens of both files: chat checkpoints often name the end of a turn only in generation_config.json."""
    found: list[int] = []
    for source in (generation, raw):
        ids = source.get("eos_token_id")
        found += [] if ids is None else [ids] if isinstance(ids, int) else ids
    return tuple(dict.fromkeys(found))
