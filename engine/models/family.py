"""What a `model_type` implies beyond the keys of its config.json, one row per family."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu_tanh"]
WindowRule = Literal["never", "every layer", "by layer type"]


@dataclass(frozen=True, slots=True)
class Family:
    """Facts of a family, and transformers' defaults for keys that its files may leave out.

    head_dim, theta, norm_eps, is_tied, window, window_pattern, attention_softcap, logits_softcap: defaults; head_dim
    None divides the width by the heads. windows: which layers may have a sliding window. switches_window: only with
    `use_sliding_window`. local_theta: of the layers with a window, where their rotation is another one.
    reads_attention_bias, reads_mlp_bias: whether these keys count. has_qkv_bias: q, k and v have biases unasked.
    is_fused: q, k, v are one tensor in the files, gate and up too. is_gemma: embeddings are scaled, norm weights are
    saved less one, attention and MLP have a norm behind them too, scores have a scale of their own and may be capped.
    """

    activation: Activation = "silu"
    head_dim: int | None = None
    theta: float = 10_000.0
    local_theta: float | None = None
    norm_eps: float = 1e-6
    is_tied: bool = False
    windows: WindowRule = "never"
    window: int | None = None
    window_pattern: int = 0
    switches_window: bool = False
    reads_attention_bias: bool = False
    reads_mlp_bias: bool = False
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    is_fused: bool = False
    is_gemma: bool = False
    attention_softcap: float | None = None
    logits_softcap: float | None = None
    experts: Literal["none", "mixtral", "qwen"] = "none"


FAMILIES = {
    "llama": Family(reads_attention_bias=True, reads_mlp_bias=True),
    "mistral": Family(windows="every layer", window=4096),
    "qwen2": Family(windows="by layer type", window=4096, switches_window=True, has_qkv_bias=True),
    "qwen3": Family(
        head_dim=128, windows="by layer type", window=4096, switches_window=True, reads_attention_bias=True,
        has_qk_norm=True,
    ),
    "phi3": Family(norm_eps=1e-5, windows="every layer", is_fused=True),
    "gemma2": Family(
        activation="gelu_tanh", head_dim=256, is_tied=True, windows="by layer type", window=4096, window_pattern=2,
        reads_attention_bias=True, is_gemma=True, attention_softcap=50.0, logits_softcap=30.0,
    ),
    "gemma3_text": Family(
        activation="gelu_tanh", head_dim=256, theta=1_000_000.0, local_theta=10_000.0, is_tied=True,
        windows="by layer type", window=4096, window_pattern=6, reads_attention_bias=True, has_qk_norm=True,
        is_gemma=True,
    ),
    "mixtral": Family(theta=1_000_000.0, norm_eps=1e-5, windows="every layer", experts="mixtral"),
    "qwen2_moe": Family(
        windows="by layer type", window=4096, switches_window=True, has_qkv_bias=True, experts="qwen",
    ),
    "qwen3_moe": Family(
        windows="every layer", window=4096, switches_window=True, reads_attention_bias=True, has_qk_norm=True,
        experts="qwen",
    ),
}  # fmt: skip
