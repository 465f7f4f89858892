"""What stands before and behind an exact int8 product on a GPU: rows rounded to int8, and int32 sums scaled back.
Twins: reference_linear.quantize_rows and reference_linear.scale_sums."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

__all__ = ["quantize_rows", "scale_sums"]

ROW_BLOCK = 4096
SUMS_BLOCK = 1024
WARPS = 8
HALF_EVEN = tl.constexpr(12582912.0)
"""1.5 * 2^23: a float32 below 2^22 that it is added to and taken from again is rounded to the nearest integer, halves
to the even one."""


@triton.jit(do_not_specialize=["row_stride"])
def round_row(x_ptr, rounded_ptr, scales_ptr, size, row_stride, BLOCK: tl.constexpr):
    """One row of x [n, size], to int8 [n or more, row_stride] and its scale; grid: (n,). The second reading comes from
    the cache."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    most = tl.zeros([BLOCK], tl.float32)
    for first in range(0, size, BLOCK):
        x = tl.load(x_ptr + row * size + first + at, mask=first + at < size, other=0.0)
        most = tl.maximum(most, tl.abs(x.to(tl.float32)))
    largest = tl.max(most, 0)
    factor = tl.where(largest > 0.0, tl.div_rn(127.0, tl.where(largest > 0.0, largest, 1.0)), 0.0)
    for first in range(0, size, BLOCK):
        is_in = first + at < size
        x = tl.load(x_ptr + row * size + first + at, mask=is_in, other=0.0)
        level = (x.to(tl.float32) * factor + HALF_EVEN) - HALF_EVEN
        tl.store(rounded_ptr + row * row_stride + first + at, level.to(tl.int8), mask=is_in)
    tl.store(scales_ptr + row, tl.div_rn(largest, 127.0))


@triton.jit(do_not_specialize=["sums_stride"])
def scale_row(
    sums_ptr, x_scales_ptr, scales_ptr, bias_ptr, out_ptr, size, sums_stride,
    HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK columns of one row of int32 sums [n or more, sums_stride], to out [n, size]; grid: (n, blocks)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < size
    sums = tl.load(sums_ptr + row * sums_stride + at, mask=is_in, other=0).to(tl.float32)
    out = sums * (tl.load(x_scales_ptr + row) * tl.load(scales_ptr + at, mask=is_in, other=0.0))
    if HAS_BIAS:
        out += tl.load(bias_ptr + at, mask=is_in, other=0.0)
    tl.store(out_ptr + row * size + at, out.to(out_ptr.dtype.element_ty), mask=is_in)


def quantize_rows(x: torch.Tensor, n_rows: int, row_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference_linear.quantize_rows; here what fills the rows and the columns up is anything."""
    n, size = x.shape
    rounded = torch.empty(n_rows, row_size, dtype=torch.int8, device=x.device)
    scales = torch.empty(n, dtype=torch.float32, device=x.device)
    block = min(ROW_BLOCK, triton.next_power_of_2(size))
    if n:
        round_row[(n,)](x.contiguous(), rounded, scales, size, row_size, BLOCK=block, num_warps=WARPS)
    return rounded, scales


def scale_sums(
    sums: torch.Tensor, x_scales: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """See reference_linear.scale_sums."""
    n, size = len(x_scales), len(scales)
    out = torch.empty(n, size, dtype=dtype, device=sums.device)
    block = min(SUMS_BLOCK, triton.next_power_of_2(size))
    if n:
        scale_row[(n, triton.cdiv(size, block))](
            sums, x_scales, scales, scales if bias is None else bias, out, size, sums.stride(0),
            HAS_BIAS=bias is not None, BLOCK=block,
        )  # fmt: skip
    return out
