"""The longest accepted beginning of each draft. Twin: reference.accept_chain."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl


@triton.jit
def first_mismatch(drafted_ptr, sampled_ptr, starts_ptr, accepted_ptr, BLOCK: tl.constexpr):
    """One draft of at most BLOCK tokens; grid: (rows,)."""
    row = tl.program_id(0)
    start = tl.load(starts_ptr + row)
    length = tl.load(starts_ptr + row + 1) - start - 1
    at = tl.arange(0, BLOCK)
    is_drafted = at < length
    drafted = tl.load(drafted_ptr + start + at, mask=is_drafted, other=0)
    sampled = tl.load(sampled_ptr + start + at, mask=is_drafted, other=0)
    tl.store(accepted_ptr + row, tl.min(tl.where(is_drafted & (drafted == sampled), length, at.to(tl.int64)), 0))


def accept_chain(drafted: torch.Tensor, sampled: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """See reference.accept_chain."""
    accepted = torch.empty(len(starts) - 1, dtype=torch.int64, device=drafted.device)
    block = triton.next_power_of_2(len(drafted))
    first_mismatch[(len(accepted),)](drafted, sampled, starts, accepted, BLOCK=block)
    return accepted
