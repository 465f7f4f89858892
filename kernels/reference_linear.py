"""The definitions of the products in kernels/linear.py and of kernels/int8_rows.py, in plain torch on any device, and
of the 4-bit format."""

import torch

__all__ = ["CHUNK", "GROUP", "linear_4bit", "linear_8bit", "quantize_rows", "scale_sums", "unpack_4bit"]

CHUNK, GROUP = 64, 32
"""Inputs whose 4-bit weights lie in 32 bytes, and inputs that share a scale."""


def linear_8bit(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:  # fmt: skip
    """x [m, k], weight int8 or float8 [n, k], scale and bias float32 [n], to [m, n] in x.dtype: sums in float32 of x
    times the elements of weight, times scale, plus bias."""
    out = x.float() @ weight.float().t() * scale
    return (out if bias is None else out + bias).to(x.dtype)


def linear_4bit(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, k: int) -> torch.Tensor:
    """x [m, k], packed uint8 [n, bytes] (see unpack_4bit), bias float32 [n], to [m, n] in x.dtype: sums in float32 of x
    times the weights in the dtype of x, plus bias."""
    out = x.float() @ unpack_4bit(packed, k, x.dtype).float().t()
    return (out if bias is None else out + bias).to(x.dtype)


def quantize_rows(x: torch.Tensor, n_rows: int, row_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x [n, k] to (int8 [n_rows, row_size], float32 [n]): each row in 127 steps of its largest magnitude, and the
    length of a step. n_rows >= n and row_size >= k: filled up with zeros."""
    wide = x.float()
    most = wide.abs().amax(1, keepdim=True)
    factor = torch.where(most > 0, torch.div(torch.full_like(most, 127.0), most), 0.0)
    rounded = (wide * factor).round().to(torch.int8)
    filled = torch.nn.functional.pad(rounded, (0, row_size - x.shape[1], 0, n_rows - len(x)))
    return filled, most[:, 0] / 127


def scale_sums(
    sums: torch.Tensor, x_scales: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """int32 sums of int8 products [n or more, out or more], x_scales float32 [n], scales and bias float32 [out], to
    what they stand for, [n, out] of dtype."""
    out = sums[: len(x_scales), : len(scales)].float() * (x_scales[:, None] * scales)
    return (out if bias is None else out + bias).to(dtype)


def unpack_4bit(packed: torch.Tensor, k: int, dtype: torch.dtype) -> torch.Tensor:
    """What packed weights uint8 [n, bytes] stand for: [n, k] of dtype, (level - 8) * scale, with scale and product
    rounded to dtype.

    For every 64 inputs 32 bytes, input i in the low half of byte i and input 32 + i in the high half; then the scales
    of the groups of 32, float16, filled up to a multiple of 16.
    """
    n, n_chunks = len(packed), -(-k // CHUNK)
    halves = packed[:, : n_chunks * GROUP].view(n, n_chunks, 1, GROUP)
    levels = torch.cat((halves & 15, halves >> 4), 2).view(n, -1, GROUP).to(dtype) - 8
    scales = packed[:, n_chunks * GROUP :].contiguous().view(torch.float16)[:, : levels.shape[1], None].to(dtype)
    return (levels * scales).view(n, -1)[:, :k]
