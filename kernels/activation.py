"""The gated activation of the MLP. Twin: reference.silu_and_mul."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl


@triton.jit
def gate_rows(gate_up_ptr, out_ptr, size, BLOCK: tl.constexpr):
    """BLOCK columns of one row: gate_up [rows, 2 size] to out [rows, size]; grid: (rows, blocks)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < size
    gate = tl.load(gate_up_ptr + row * 2 * size + at, mask=is_in, other=0.0)
    up = tl.load(gate_up_ptr + row * 2 * size + size + at, mask=is_in, other=0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    activated = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)  # rounded before the product, as the definition has it
    tl.store(out_ptr + row * size + at, (activated.to(tl.float32) * up).to(gate.dtype), mask=is_in)


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See reference.silu_and_mul."""
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, size, dtype=gate_up.dtype, device=gate_up.device)
    block = min(1024, triton.next_power_of_2(size))
    gate_rows[(rows, triton.cdiv(size, block))](gate_up.contiguous(), out, size, BLOCK=block)
    return out
