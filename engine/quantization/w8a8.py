"""int8 weights with one scale per output, int8 activations with one scale per token.

Sums of int8 products are exact integers, so a row comes out the same in any batch, from any product that adds them up.
Symmetric rounding to the largest magnitude (Jacob et al., 2018, without zero points), per token as in LLM.int8()
(Dettmers et al., 2022) without its outlier path.
"""

from dataclasses import dataclass

import torch

from engine.models.layers import Linear
from engine.quantization.rounding import round_rows, slices
from kernels import reference_linear
from kernels.native.library import NativeLibrary
from kernels.native.structures import Form, ProjectionWeights

__all__ = ["W8A8Linear"]

FEW_ROWS = 64
"""Up to here the C kernel, which streams the weights once, is faster than torch._int_mm."""
SIZES_OF, ROWS_OF = 8, 32
"""What sizes of weights, and numbers of rows, are filled up to on a GPU."""


@dataclass(frozen=True, slots=True)
class W8A8Linear:
    """weight: int8 [out, in], both filled up to multiples of 8 on a GPU; scale: float32 [out]; weight_sum: int32 [out],
    the sums of the rows of weight; bias: float32 [out] or None. library: None computes all of it in torch, to the same
    bits.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    weight_sum: torch.Tensor
    bias: torch.Tensor | None
    library: NativeLibrary | None

    @classmethod
    def quantize(cls, linear: Linear, library: NativeLibrary | None) -> "W8A8Linear":
        """Round each row of weights to 127 steps of its largest magnitude."""
        weight, scale = round_rows(linear.weight, torch.int8, SIZES_OF if linear.weight.is_cuda else 1)
        weight_sum = torch.empty(len(scale), dtype=torch.int32, device=weight.device)
        for rows in slices(*linear.weight.shape):
            weight_sum[rows] = weight[rows].sum(1, dtype=torch.int32)
        bias = None if linear.bias is None else linear.bias.float()
        return cls(weight, scale, weight_sum, bias, library)

    @property
    def n_bytes(self) -> int:
        """Bytes of weights, scales, sums and bias."""
        bias = 0 if self.bias is None else self.bias.nbytes
        return self.weight.nbytes + self.scale.nbytes + self.weight_sum.nbytes + bias

    def describe(self) -> ProjectionWeights | None:
        """The weights, for the C kernels; None where torch computes."""
        if self.library is None:
            return None
        bias = 0 if self.bias is None else self.bias.data_ptr()
        addresses = (self.weight.data_ptr(), self.scale.data_ptr(), self.weight_sum.data_ptr(), bias)
        return ProjectionWeights(*addresses, *self.weight.shape[::-1], Form.W8A8)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out], in the dtype of x."""
        library = self.library
        if library is None:
            return self.compute(x) if x.device.type == "cpu" else self._compute_on_gpu(x)
        if x.shape[0] <= FEW_ROWS:
            return library.linear_w8a8(x.contiguous(), self.weight, self.scale, self.weight_sum, self.bias)
        quantized, x_scale = library.quantize_rows(x.contiguous())
        return library.scale_sums(torch._int_mm(quantized, self.weight.t()), x_scale, self.scale, self.bias)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The definition of the product, in torch: [n, in] to [n, out]."""
        rows, x_scale = reference_linear.quantize_rows(x, len(x), self.weight.shape[1])
        sums = torch._int_mm(rows, self.weight.t())
        return reference_linear.scale_sums(sums, x_scale, self.scale, self.bias, x.dtype)

    def _compute_on_gpu(self, x: torch.Tensor) -> torch.Tensor:
        """In three launches. torch._int_mm wants more than 16 rows there, and sizes that are multiples of 8: what fills
        rows up is anything, and meets weights of zero, or is not read."""
        from kernels import int8_rows

        n_rows = -(-len(x) // ROWS_OF) * ROWS_OF
        rows, x_scale = int8_rows.quantize_rows(x, n_rows, self.weight.shape[1])
        sums = torch._int_mm(rows, self.weight.t())
        return int8_rows.scale_sums(sums, x_scale, self.scale, self.bias, x.dtype)
