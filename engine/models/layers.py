"""What a decoder layer is made of: plain holders of weights. `nn.Module` would cost more per call than a small product
itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.models.family import Activation
from kernels import Kernels


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
    """x W^T + b. weight: [out, in]; bias: [out] or None. keeps_precision: it is not to be quantised."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    keeps_precision: bool = False

    @classmethod
    def on_meta(
        cls, n_in: int, n_out: int, *, has_bias: bool = False, keeps_precision: bool = False, dtype: torch.dtype
    ) -> "Linear":
        """Shapes without memory, to be filled by loading."""
        weight = torch.empty(n_out, n_in, device="meta", dtype=dtype)
        return cls(weight, torch.empty(n_out, device="meta", dtype=dtype) if has_bias else None, keeps_precision)

    @property
    def n_bytes(self) -> int:
        """Bytes of weight and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out]."""
        return torch.nn.functional.linear(x, self.weight, self.bias)


class Mlp(Protocol):
    """What follows attention in a layer: `GatedMlp`, or `experts.Experts`."""

    @property
    def projections(self) -> Iterator[Projection]:
        """Its weight matrices."""
        ...

    def __call__(self, x: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """[n, hidden] to [n, hidden]."""
        ...


@dataclass(slots=True)
class GatedMlp:
    """down(activation(gate) * up); gate_up holds the rows of gate, then those of up."""

    gate_up: Projection
    down: Projection
    activation: Activation

    @classmethod
    def on_meta(
        cls, hidden: int, middle: int, activation: Activation, *, has_bias: bool = False, dtype: torch.dtype
    ) -> "GatedMlp":
        """Shapes without memory, to be filled by loading."""
        gate_up = Linear.on_meta(hidden, 2 * middle, has_bias=has_bias, dtype=dtype)
        return cls(gate_up, Linear.on_meta(middle, hidden, has_bias=has_bias, dtype=dtype), activation)

    @property
    def projections(self) -> Iterator[Projection]:
        """gate_up and down."""
        yield from (self.gate_up, self.down)

    def __call__(self, x: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """[n, hidden] to [n, hidden]."""
        gate_up = self.gate_up(x)
        gated = kernels.silu_and_mul(gate_up) if self.activation == "silu" else kernels.gelu_tanh_and_mul(gate_up)
        return self.down(gated)


@dataclass(slots=True)
class DecoderLayer:
    """One block: norm, attention, norm, MLP. qkv holds query, key and value rows one after another.

    q_norm, k_norm: [head_dim], or None. attention_post_norm, mlp_post_norm: [hidden], what their outputs go through
    before they are added (Gemma), or None. window: keys a query sees, itself included; None is all. rope: which of the
    decoder's rotations.
    """

    input_norm: torch.Tensor
    qkv: Projection
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: Projection
    attention_post_norm: torch.Tensor | None
    mlp_norm: torch.Tensor
    mlp: Mlp
    mlp_post_norm: torch.Tensor | None
    window: int | None
    rope: int
