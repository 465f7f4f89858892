"""What a decoder layer is made of: plain holders of weights. `nn.Module` would cost more per call than a small product
itself."""

from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Linear:
    """x W^T + b. weight: [out, in]; bias: [out] or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None

    @classmethod
    def on_meta(cls, n_in: int, n_out: int, *, has_bias: bool = False, dtype: torch.dtype) -> "Linear":
        """Shapes without memory, to be filled by loading."""
        weight = torch.empty(n_out, n_in, device="meta", dtype=dtype)
        return cls(weight, torch.empty(n_out, device="meta", dtype=dtype) if has_bias else None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out]."""
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(slots=True)
class DecoderLayer:
    """One block: norm, attention, norm, gated MLP. qkv holds query, key and value rows one after another; gate_up both
    halves.

    q_norm, k_norm: [head_dim] (Qwen3), or None. window: keys a query sees, itself included; None is all.
    """

    input_norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear
    window: int | None
