"""The gated activations of the MLP. Twins: reference.silu_and_mul and reference.gelu_tanh_and_mul."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

GATE_BLOCK = 1024
WARPS = 4


@triton.jit
def gate_rows(gate_up_ptr, out_ptr, size, BLOCK: tl.constexpr, IS_GELU: tl.constexpr):
    """BLOCK columns of one row: gate_up [rows, 2 size] to out [rows, size]; grid: (rows, blocks)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < size
    gate = tl.load(gate_up_ptr + row * 2 * size + at, mask=is_in, other=0.0)
    up = tl.load(gate_up_ptr + row * 2 * size + size + at, mask=is_in, other=0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    slope = wide
    if IS_GELU:  # (1 + tanh(u)) / 2 is the logistic function of 2 u; 2 sqrt(2 / pi) = 1.5957691216057308
        slope = 1.5957691216057308 * (wide + 0.044715 * wide * wide * wide)
    activated = (wide / (1.0 + tl.exp(-slope))).to(gate.dtype)  # rounded before the product, as the definition has it
    tl.store(out_ptr + row * size + at, (activated.to(tl.float32) * up).to(gate.dtype), mask=is_in)


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See reference.silu_and_mul."""
    return _launch(gate_up, is_gelu=False)


def gelu_tanh_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See reference.gelu_tanh_and_mul."""
    return _launch(gate_up, is_gelu=True)


def _launch(gate_up: torch.Tensor, *, is_gelu: bool) -> torch.Tensor:
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, size, dtype=gate_up.dtype, device=gate_up.device)
    block = min(GATE_BLOCK, triton.next_power_of_2(size))
    gate_rows[(rows, triton.cdiv(size, block))](
        gate_up.contiguous(), out, size, BLOCK=block, IS_GELU=is_gelu, num_warps=WARPS
    )
    return out
