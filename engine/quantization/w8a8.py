"""int8 weights with one scale per output, int8 activations with one scale per token.

Sums of int8 products are exact integers, so a row comes out the same in any batch, from any product that adds them up.
Symmetric rounding to the largest magnitude (Jacob et al., 2018, without zero points), per token as in LLM.int8()
(Dettmers et al., 2022) without its outlier path.
"""

from dataclasses import dataclass

import torch

from engine.models.layers import Linear
from kernels import huge_pages
from kernels.native.library import NativeLibrary
from kernels.native.structures import Form, ProjectionWeights

__all__ = ["W8A8Linear"]

FEW_ROWS = 64
"""Up to here the C kernel, which streams the weights once, is faster than torch._int_mm."""


@dataclass(frozen=True, slots=True)
class W8A8Linear:
    """weight: int8 [out, in]; scale: float32 [out]; weight_sum: int32 [out], the sums of the rows of weight; bias:
    float32 [out] or None. library: None computes all of it in torch, to the same bits.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    weight_sum: torch.Tensor
    bias: torch.Tensor | None
    library: NativeLibrary | None

    @classmethod
    def quantize(cls, linear: Linear, library: NativeLibrary | None) -> "W8A8Linear":
        """Round each row of weights to 127 steps of its largest magnitude."""
        weight = huge_pages.empty(linear.weight.shape, torch.int8)
        scale = torch.empty(linear.weight.shape[0])
        weight_sum = torch.empty(linear.weight.shape[0], dtype=torch.int32)
        for first in range(
            0, len(scale), 1024
        ):  # in slices: the float32 copy of a whole weight would be the peak of loading
            part = linear.weight[first : first + 1024].float()
            scale[first : first + 1024] = part.abs().amax(1) / 127
            steps = scale[first : first + 1024].clamp(min=torch.finfo(torch.float32).tiny)
            levels = (part / steps[:, None]).round_()
            weight[first : first + 1024] = levels
            weight_sum[first : first + 1024] = levels.sum(1)  # exact: below 2^24 for up to 132,000 inputs
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
            return self.compute(x)
        if x.shape[0] <= FEW_ROWS:
            return library.linear_w8a8(x.contiguous(), self.weight, self.scale, self.weight_sum, self.bias)
        quantized, x_scale = library.quantize_rows(x.contiguous())
        return library.scale_sums(torch._int_mm(quantized, self.weight.t()), x_scale, self.scale, self.bias)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The definition of the product, in torch: [n, in] to [n, out]."""
        wide = x.float()
        most = wide.abs().amax(1, keepdim=True)
        factor = torch.where(most > 0, torch.div(torch.full_like(most, 127.0), most), 0.0)
        quantized = (wide * factor).round().to(torch.int8)
        out = torch._int_mm(quantized, self.weight.t()).float() * (most / 127 * self.scale)
        return (out if self.bias is None else out + self.bias).to(x.dtype)
