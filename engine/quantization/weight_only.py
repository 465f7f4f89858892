"""Weights in 8 or 4 bits under activations as they are: the forms of a GPU, where decoding waits for weights to be
read, and the tensor cores multiply them in 16 bits meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.models.layers import Linear
from engine.quantization.int4 import pack_weight
from engine.quantization.rounding import round_rows, slices
from kernels.reference_linear import unpack_4bit

__all__ = ["Weight4Linear", "Weight8Linear"]

FEW_ROWS = 64
"""Up to here a kernel reads the small weights; beyond, widening them for torch's product costs less than the
product."""
INVARIANT_BLOCK = 64
"""Rows that a kernel takes at once where a row's bits are not to depend on their number."""


@dataclass(frozen=True, slots=True)
class Weight8Linear:
    """weight: int8 or float8_e4m3fn [out, in]; scale: float32 [out]; bias: float32 [out] or None.

    is_invariant: a row is the same bits in any batch: one way of computing for every number of rows.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    is_invariant: bool

    @classmethod
    def quantize(cls, linear: Linear, dtype: torch.dtype, *, is_invariant: bool) -> "Weight8Linear":
        """Round each row of weights to its largest magnitude over the largest number of dtype, on its device."""
        weight, scale = round_rows(linear.weight, dtype)
        return cls(weight, scale, None if linear.bias is None else linear.bias.float(), is_invariant)

    @property
    def n_bytes(self) -> int:
        """Bytes of weights, scales and bias."""
        return self.weight.nbytes + self.scale.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out], in the dtype of x."""
        if self.is_invariant or len(x) <= FEW_ROWS:
            from kernels.linear import linear_8bit

            block_m = INVARIANT_BLOCK if self.is_invariant else None
            return linear_8bit(x, self.weight, self.scale, self.bias, block_m=block_m)
        return _multiply_widened(x, len(self.weight), lambda rows: self.widened(rows, x.dtype), self.bias)

    def widened(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """What some rows of the weight stand for: [rows, in] of dtype, rounded once."""
        elements = self.weight[rows].to(dtype)  # exact
        return torch.mul(elements, self.scale[rows, None], out=elements)


@dataclass(frozen=True, slots=True)
class Weight4Linear:
    """packed: uint8 [out, bytes], see int4.pack_columns; bias: float32 [out] or None. is_invariant: as in
    Weight8Linear."""

    packed: torch.Tensor
    bias: torch.Tensor | None
    n_in: int
    is_invariant: bool

    @classmethod
    def quantize(cls, linear: Linear, *, is_invariant: bool) -> "Weight4Linear":
        """Round every group of weights to 16 steps, on its device: the weights that Int4Linear has on a CPU."""
        packed = pack_weight(linear.weight)
        bias = None if linear.bias is None else linear.bias.float()
        return cls(packed, bias, linear.weight.shape[1], is_invariant)

    @property
    def n_bytes(self) -> int:
        """Bytes of weights, scales and bias."""
        return self.packed.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out], in the dtype of x."""
        if self.is_invariant or len(x) <= FEW_ROWS:
            from kernels.linear import linear_4bit

            block_m = INVARIANT_BLOCK if self.is_invariant else None
            return linear_4bit(x, self.packed, self.bias, self.n_in, block_m=block_m)
        return _multiply_widened(x, len(self.packed), lambda rows: self.widened(rows, x.dtype), self.bias)

    def widened(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """What some rows of the weight stand for: [rows, in] of dtype."""
        return unpack_4bit(self.packed[rows], self.n_in, dtype)


def _multiply_widened(
    x: torch.Tensor, n_out: int, widened: Callable[[slice], torch.Tensor], bias: torch.Tensor | None
) -> torch.Tensor:
    """x [n, in] times a weight [n_out, in] that `widened` gives a few rows of at a time."""
    out = x.new_empty(len(x), n_out)
    for rows in slices(n_out, x.shape[1]):
        part = None if bias is None else bias[rows].to(x.dtype)
        out[:, rows] = torch.nn.functional.linear(x, widened(rows), part)
    return out
