"""What a Hugging Face checkpoint folder says about its model, as plain data. This module does not import torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models.experts_config import ExpertsConfig
from engine.models.family import FAMILIES, Activation, Family
from engine.models.rope_config import RopeConfig


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One decoder as data.

    windows: per layer how many keys a query sees, itself included (None: all before it). local_rope: the rotation of
    layers with a window (None: `rope`, as everywhere). attention_scale: what scores are multiplied by before the
    softmax. attention_softcap, logits_softcap: c in c tanh(x / c), over scores and over the final logits.
    embedding_scale: what embeddings are multiplied by. norm_offset: what is added to every saved norm weight.
    has_post_norms: attention and MLP have a norm behind them too. experts: the MLP of sparse layers (None: there are
    none).
    """

    family: str
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
    attention_scale: float
    bos_token_id: int | None = None
    activation: Activation = "silu"
    local_rope: RopeConfig | None = None
    attention_softcap: float | None = None
    logits_softcap: float | None = None
    embedding_scale: float | None = None
    norm_offset: float = 0.0
    has_post_norms: bool = False
    experts: ExpertsConfig | None = None

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
        head_dim = raw.get("head_dim") or family.head_dim or hidden_size // n_heads
        if head_dim % 2:
            raise ValueError(f"head_dim is {head_dim}: rotary embedding needs an even one")
        has_attention_bias = bool(raw.get("attention_bias", False)) and family.reads_attention_bias
        rope, local_rope = _ropes(raw, family, head_dim)
        return cls(
            family=raw["model_type"],
            vocab_size=_required(raw, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=_required(raw, "intermediate_size"),
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            norm_eps=float(raw.get("rms_norm_eps", family.norm_eps)),
            rope=rope,
            windows=_windows(raw, family, n_layers),
            max_position=max(_required(raw, "max_position_embeddings"), rope.max_position),
            is_tied=bool(raw.get("tie_word_embeddings", family.is_tied)),
            has_qkv_bias=has_attention_bias or (family.has_qkv_bias and bool(raw.get("qkv_bias", True))),
            has_output_bias=has_attention_bias,
            has_mlp_bias=bool(raw.get("mlp_bias", False)) and family.reads_mlp_bias,
            has_qk_norm=family.has_qk_norm,
            eos_token_ids=_end_tokens(raw, generation or {}),
            attention_scale=(raw.get("query_pre_attn_scalar", 256) if family.is_gemma else head_dim) ** -0.5,
            bos_token_id=raw.get("bos_token_id"),
            activation=family.activation,
            local_rope=local_rope,
            attention_softcap=raw.get("attn_logit_softcapping", family.attention_softcap) if family.is_gemma else None,
            logits_softcap=raw.get("final_logit_softcapping", family.logits_softcap) if family.is_gemma else None,
            embedding_scale=hidden_size**0.5 if family.is_gemma else None,
            norm_offset=1.0 if family.is_gemma else 0.0,
            has_post_norms=family.is_gemma,
            experts=ExpertsConfig.from_dict(raw, family.experts, n_layers),
        )

    @property
    def qkv_size(self) -> int:
        """Width of the fused query, key and value projection."""
        return (self.n_heads + 2 * self.n_kv_heads) * self.head_dim

    @property
    def longest_context(self) -> int:
        """Most positions that an engine may serve: more than max_position where dynamic rotation stretches to them."""
        return int(self.max_position * self.rope.factor) if self.rope.kind == "dynamic" else self.max_position

    def position_scheme(self, max_model_len: int) -> str:
        """A name of how an engine of so many positions rotates, for the keys of cached pages: pages of one rotation are
        no use under another."""
        local = "" if self.local_rope is None else self.local_rope.scheme(max_model_len)
        return self.rope.scheme(max_model_len) + local


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
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise ValueError(f"config.json: model_type is {model_type!r}; supported are {', '.join(FAMILIES)}")
    for architecture in raw.get("architectures") or ():
        if not architecture.endswith("ForCausalLM"):
            raise ValueError(
                f"config.json: architecture {architecture!r} does not generate text; use a ForCausalLM checkpoint"
            )
    key, supported = ("hidden_activation", "gelu_pytorch_tanh") if family.is_gemma else ("hidden_act", "silu")
    if raw.get(key, supported) != supported:
        raise ValueError(f"config.json: {key} is {raw[key]!r}; only {supported} is supported here")
    if raw.get("quantization_config"):
        raise ValueError("config.json: quantization_config is set; use a checkpoint in bfloat16, float16 or float32")
    if raw.get("use_bidirectional_attention"):
        raise ValueError("config.json: use_bidirectional_attention is set; only causal attention is supported")
    return family


def _ropes(raw: dict[str, Any], family: Family, head_dim: int) -> tuple[RopeConfig, RopeConfig | None]:
    """The rotation, and that of layers with a window where it is another one: `rope_scaling` + `rope_theta`
    (transformers 4) or `rope_parameters` (transformers 5, by layer type where there are two)."""

    def read(options: dict[str, Any], theta: float) -> RopeConfig:
        kind = options.get("rope_type", options.get("type"))
        if family.is_fused and kind in ("su", "yarn"):  # what early Phi-3 checkpoints call longrope
            options = {**options, "rope_type": "longrope"}
        return RopeConfig.from_dict(
            {"partial_rotary_factor": raw.get("partial_rotary_factor"), **options},
            theta=theta,
            max_position=_required(raw, "max_position_embeddings"),
            original_max_position=raw.get("original_max_position_embeddings"),
            head_dim=head_dim,
        )

    new: dict[str, Any] = raw.get("rope_parameters") or {}
    scaling: dict[str, Any] = raw.get("rope_scaling") or {}
    theta = float(raw.get("rope_theta") or family.theta)
    if family.local_theta is None:
        return read({**scaling, **new}, theta), None
    local_theta = float(raw.get("rope_local_base_freq") or family.local_theta)
    full, local = new.get("full_attention") or {}, new.get("sliding_attention") or {}
    return read({**scaling, **full}, theta), read(local, local_theta)


def _windows(raw: dict[str, Any], family: Family, n_layers: int) -> tuple[int | None, ...]:
    window = raw.get("sliding_window", family.window)
    if family.windows == "never" or (family.switches_window and not raw.get("use_sliding_window", False)):
        window = None
    if window is not None and window < 1:
        raise ValueError(f"config.json: sliding_window is {window}: it must be positive, or null")
    types = raw.get("layer_types")
    if types is None:
        return tuple(window if _has_window(raw, family, layer) else None for layer in range(n_layers))
    unknown = set(types) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ValueError(
            f"config.json: layer_types holds {sorted(unknown)}; full_attention and sliding_attention are supported"
        )
    if len(types) != n_layers:
        raise ValueError(f"config.json: layer_types names {len(types)} layers, num_hidden_layers says {n_layers}")
    if window is None and "sliding_attention" in types:
        raise ValueError(
            "config.json: layer_types has sliding_attention, but use_sliding_window or sliding_window is off"
        )
    windows = tuple(window if kind == "sliding_attention" else None for kind in types)
    if family.windows == "every layer" and windows != (window,) * n_layers:
        raise ValueError(f"config.json: layer_types mixes layers, which {raw['model_type']} models do not")
    return windows


def _has_window(raw: dict[str, Any], family: Family, layer: int) -> bool:
    """Which layers have the window where the file does not say: transformers' defaults of each family."""
    if family.windows != "by layer type":
        return True
    if family.is_gemma:
        pattern = raw.get("sliding_window_pattern", raw.get("_sliding_window_pattern", family.window_pattern))
        return bool((layer + 1) % pattern)
    first: int = raw.get("max_window_layers", 28)
    return layer < first and layer % 2 == 0 if family.experts == "qwen" else layer >= first


def _end_tokens(raw: dict[str, Any], generation: dict[str, Any]) -> tuple[int, ...]:
    """The end tokens of both files: chat checkpoints often name the end of a turn only in generation_config.json."""
    found: list[int] = []
    for source in (generation, raw):
        ids = source.get("eos_token_id")
        found += [] if ids is None else [ids] if isinstance(ids, int) else ids
    return tuple(dict.fromkeys(found))
