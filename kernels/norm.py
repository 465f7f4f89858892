"""Root-mean-square norm, alone and with the residual sum before it. Twins: reference.rms_norm and
reference.add_rms_norm."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl


def warps_for(block: int) -> int:
    """For a row of `block` columns: as many as have 16 columns a thread, which are two loads of bfloat16."""
    return min(16, max(1, block // 512))


@triton.jit
def norm_rows(
    x_ptr, residual_ptr, weight_ptr, out_ptr, total_ptr, size, eps, BLOCK: tl.constexpr, HAS_RESIDUAL: tl.constexpr
):  # fmt: skip
    """One row of [rows, size]; grid: (rows,). With a residual, x + residual goes to total and is what is normed."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    is_in = at < size
    x = tl.load(x_ptr + row * size + at, mask=is_in, other=0.0)
    weight = tl.load(weight_ptr + at, mask=is_in, other=0.0).to(tl.float32)  # on its way while the sum is taken
    dtype = x.dtype
    # All arithmetic is in float32, with the definition's roundings: the interpreter's own bfloat16 arithmetic is wrong.
    wide = x.to(tl.float32)
    if HAS_RESIDUAL:
        residual = tl.load(residual_ptr + row * size + at, mask=is_in, other=0.0)
        total = (wide + residual.to(tl.float32)).to(dtype)
        tl.store(total_ptr + row * size + at, total, mask=is_in)
        wide = total.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(wide * wide) / size + eps)
    normed = (wide * inverse).to(dtype).to(tl.float32) * weight
    tl.store(out_ptr + row * size + at, normed.to(dtype), mask=is_in)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See reference.rms_norm."""
    x = x.contiguous()
    size, out = x.shape[-1], torch.empty_like(x)
    block = triton.next_power_of_2(size)
    norm_rows[(x.numel() // size,)](
        x, x, weight, out, out, size, eps, BLOCK=block, HAS_RESIDUAL=False, num_warps=warps_for(block)
    )
    return out


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.add_rms_norm."""
    x, residual = x.contiguous(), residual.contiguous()
    size, out, total = x.shape[-1], torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(size)
    norm_rows[(x.numel() // size,)](
        x, residual, weight, out, total, size, eps, BLOCK=block, HAS_RESIDUAL=True, num_warps=warps_for(block)
    )
    return out, total
