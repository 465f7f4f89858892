"""What a decoder layer is made of: plain holders of weights. `nn.Module` would cost more per call than a small product
itself."""

from dataclasses import dataclass
from typing import Protocol

import torch


class Projection(Protocol):
    """A matrix product with weights of whatever format: what a decoder calls. `Linear` is the plain one."""

    @property
    def n_bytes(self) -> int:
        """Bytes of weights that one call reads."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out]."""
        ...


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

    @property
    def n_bytes(self) -> int:
        """Bytes of weight and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

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
    qkv: Projection
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: Projection
    mlp_norm: torch.Tensor
    gate_up: Projection
    down: Projection
    window: int | None
