"""The frequencies of a rotary embedding, from the configuration and the engine's length alone."""

import math

import torch

from engine.models.rope_config import RopeConfig


def rope_frequencies(rope: RopeConfig, head_dim: int, max_model_len: int) -> tuple[torch.Tensor, float]:
    """(inverse frequencies float32 [head_dim / 2], the factor that cos and sin are multiplied by).

    max_model_len: positions that the engine serves. Two kinds depend on the length of the sequence, where a cached key
    would turn wrong as its sequence grows. They are frozen here from the engine's length, so that one rotation holds
    for every request and every cached page of an engine.

    default: Su et al., 2021. linear: positions divided by `factor` (kaiokendev, 2023). dynamic: theta grows with the
    length, so that the lowest frequency is stretched and the highest stays (NTK-aware; bloc97 and emozilla, 2023).
    yarn: Peng et al., 2023. llama3: wavelengths longer than the original context / low_freq_factor are stretched by
    `factor`, those shorter than original / high_freq_factor stay, between them the two are blended (Llama 3.1).
    longrope: a searched factor per frequency, one list up to the original context, another beyond (Ding et al., 2024).
    All as in transformers' modeling_rope_utils.
    """
    exponents = torch.arange(0, head_dim, 2).float() / head_dim
    if rope.kind == "dynamic":
        stretch = rope.factor * max(max_model_len, rope.original_max_position) / rope.original_max_position
        theta = rope.theta * (stretch - (rope.factor - 1)) ** (head_dim / (head_dim - 2))
        return 1.0 / theta**exponents, 1.0
    inv_freq = 1.0 / rope.theta**exponents
    if rope.kind == "linear":
        return inv_freq / rope.factor, 1.0
    if rope.kind == "llama3":
        turns = rope.original_max_position / (2 * math.pi / inv_freq)  # rotations within the original context
        blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        return _blend(inv_freq / rope.factor, inv_freq, blend.clamp(0.0, 1.0)), 1.0
    if rope.kind == "yarn":
        kept = 1 - _yarn_ramp(rope, head_dim)
        return _blend(inv_freq / rope.factor, inv_freq, kept), _yarn_attention_factor(rope)
    if rope.kind == "longrope":
        factors = rope.long_factors if rope.is_long(max_model_len) else rope.short_factors
        return inv_freq / torch.tensor(factors), _longrope_attention_factor(rope)
    return inv_freq, 1.0


def _blend(low: torch.Tensor, high: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """share of high, the rest low."""
    return (1 - share) * low + share * high


def _yarn_ramp(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """How much of each frequency is interpolated: 0 below the dimension that turns beta_fast times in the original
    context, 1 above the one that turns beta_slow times, linear between them."""

    def dimension(turns: float) -> float:
        return head_dim * math.log(rope.original_max_position / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.is_truncated:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp; transformers' figure
    return ((torch.arange(head_dim // 2).float() - low) / (high - low)).clamp(0.0, 1.0)


def _yarn_attention_factor(rope: RopeConfig) -> float:
    def temper(mscale: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * mscale * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    return temper(1.0) if rope.mscales is None else temper(rope.mscales[0]) / temper(rope.mscales[1])


def _longrope_attention_factor(rope: RopeConfig) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    return 1.0 if rope.factor <= 1 else math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_position))
