"""4-bit weights in groups of 32 with one scale each, int8 activations with one scale per token.

The groups are those of llama.cpp's Q4_0: the weight of the largest magnitude becomes -8 exactly. Sums of a group are
exact integers, and groups are added in one order, so a row comes out the same in any batch.
"""

from dataclasses import dataclass

import torch

from engine.models.layers import Linear
from engine.quantization.rounding import slices
from kernels import huge_pages
from kernels.native.library import NativeLibrary
from kernels.native.structures import Form, ProjectionWeights
from kernels.reference_linear import CHUNK, GROUP

__all__ = ["Int4Linear", "pack_columns", "pack_weight"]


@dataclass(frozen=True, slots=True)
class Int4Linear:
    """packed: uint8 [out, bytes], see `pack_columns`; bias: float32 [out] or None."""

    packed: torch.Tensor
    bias: torch.Tensor | None
    n_in: int
    library: NativeLibrary

    @classmethod
    def quantize(cls, linear: Linear, library: NativeLibrary) -> "Int4Linear":
        """Round every group of weights to 16 steps."""
        n_out, n_in = linear.weight.shape
        packed = huge_pages.empty((n_out, _column_bytes(n_in)), torch.uint8).zero_()
        library.pack_int4(linear.weight.contiguous(), packed)
        return cls(packed, None if linear.bias is None else linear.bias.float(), n_in, library)

    @property
    def n_bytes(self) -> int:
        """Bytes of weights, scales and bias."""
        return self.packed.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def describe(self) -> ProjectionWeights:
        """The weights, for the C kernels."""
        bias = 0 if self.bias is None else self.bias.data_ptr()
        return ProjectionWeights(self.packed.data_ptr(), 0, 0, bias, self.n_in, len(self.packed), Form.INT4)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out], in the dtype of x."""
        return self.library.linear_int4(x.contiguous(), self.packed, self.bias)


def _column_bytes(n_in: int) -> int:
    n_chunks = -(-n_in // CHUNK)
    return n_chunks * GROUP + 2 * (-(-2 * n_chunks // 16) * 16)


def pack_columns(weight: torch.Tensor) -> torch.Tensor:
    """The definition of packing, float32 [out, in] to uint8 [out, bytes].

    For every 64 inputs 32 bytes, input i in the low half of byte i and input 32 + i in the high half; then the scales
    of the groups of 32, float16, filled up to a multiple of 16.
    """
    n_out, n_in = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -n_in % CHUNK)).view(n_out, -1, GROUP)
    low, high = padded.aminmax(dim=2, keepdim=True)
    largest = torch.where(high >= -low, high, low)
    scale = (largest / -8).half()
    steps = torch.where(scale == 0, 1.0, scale.float())
    levels = ((padded / steps).round() + 8).clamp_(0, 15).to(torch.uint8).view(n_out, -1, 2, GROUP)
    halves = levels[:, :, 0] | levels[:, :, 1] << 4
    scales = torch.nn.functional.pad(scale[..., 0], (0, -scale.shape[1] % 16))
    return torch.cat((halves.view(n_out, -1), scales.contiguous().view(torch.uint8)), 1)


def pack_weight(weight: torch.Tensor) -> torch.Tensor:
    """pack_columns of a weight of any dtype, on its device, a few rows at a time."""
    packed = torch.empty(len(weight), _column_bytes(weight.shape[1]), dtype=torch.uint8, device=weight.device)
    for rows in slices(*weight.shape):
        packed[rows] = pack_columns(weight[rows].float())
    return packed
