"""The frequencies of a rotary embedding, from the configuration alone."""

import math

import torch

from engine.models.config import RopeConfig


def rope_frequencies(rope: RopeConfig, head_dim: int) -> tuple[torch.Tensor, float]:
    """(inverse frequencies float32 [head_dim / 2], the factor that cos and sin are multiplied by).

    default: Su et al., 2021. linear: positions divided by `factor` (kaiokendev, 2023). llama3: wavelengths longer than
    the original context / low_freq_factor are stretched by `factor`, those shorter than original / high_freq_factor
    stay, between them the two are blended (Llama 3.1, as in transformers' modeling_rope_utils).
    """
    inv_freq = 1.0 / (rope.theta ** (torch.arange(0, head_dim, 2).float() / head_dim))
    if rope.kind == "linear":
        inv_freq = inv_freq / rope.factor
    elif rope.kind == "llama3":
        turns = rope.original_max_position / (2 * math.pi / inv_freq)  # rotations within the original context
        blend = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        blend = blend.clamp(0.0, 1.0)
        inv_freq = (1 - blend) * inv_freq / rope.factor + blend * inv_freq
    return inv_freq, 1.0
