"""Sums of hidden states by page, always added in the order of the tokens. Twins: reference.add_page_sums and
reference.carry_page_sums."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

ADD_BLOCK = 256
CARRY_BLOCK = 128
"""Columns of one program; few, as only columns run side by side."""
WARPS = 2
UNROLL = 8
"""Tokens whose states may be on their way at once: loads need not wait for sums."""


@triton.jit
def add_segment(sums_ptr, states_ptr, segments_ptr, size, BLOCK: tl.constexpr, UNROLL: tl.constexpr):
    """BLOCK columns of one segment; grid: (segments, blocks)."""
    segment = segments_ptr + tl.program_id(0) * 4
    page, first = tl.load(segment).to(tl.int64), tl.load(segment + 1).to(tl.int64)
    count, begins = tl.load(segment + 2), tl.load(segment + 3)
    if count > 0:
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        is_in = at < size
        total = tl.load(sums_ptr + page * size + at, mask=at < tl.where(begins == 0, size, 0), other=0.0)
        for token in tl.range(first, first + count, loop_unroll_factor=UNROLL):
            total += tl.load(states_ptr + token * size + at, mask=is_in, other=0.0).to(tl.float32)
        tl.store(sums_ptr + page * size + at, total, mask=is_in)


@triton.jit(do_not_specialize=["n_links"])
def carry(before_ptr, sums_ptr, links_ptr, n_links, size, BLOCK: tl.constexpr):
    """BLOCK columns of all links, one after the other; grid: (blocks,). What one link stores and a later one loads is
    the same thread's, so it needs no barrier."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    for link in range(n_links):
        page, previous = tl.load(links_ptr + 2 * link).to(tl.int64), tl.load(links_ptr + 2 * link + 1).to(tl.int64)
        is_known = at < tl.where((page >= 0) & (previous >= 0), size, 0)
        before = tl.load(before_ptr + previous * size + at, mask=is_known, other=0.0)
        sums = tl.load(sums_ptr + previous * size + at, mask=is_known, other=0.0)
        tl.store(before_ptr + page * size + at, before + sums, mask=at < tl.where(page >= 0, size, 0))


def add_page_sums(sums: torch.Tensor, states: torch.Tensor, segments: torch.Tensor) -> None:
    """See reference.add_page_sums; all tensors are contiguous."""
    size = sums.shape[1]
    block = min(ADD_BLOCK, triton.next_power_of_2(size))
    add_segment[(len(segments), triton.cdiv(size, block))](
        sums, states, segments, size, BLOCK=block, UNROLL=UNROLL, num_warps=WARPS
    )


def carry_page_sums(before: torch.Tensor, sums: torch.Tensor, links: torch.Tensor) -> None:
    """See reference.carry_page_sums; all tensors are contiguous."""
    size = before.shape[1]
    block = min(CARRY_BLOCK, triton.next_power_of_2(size))
    carry[(triton.cdiv(size, block),)](before, sums, links, len(links), size, BLOCK=block, num_warps=WARPS)
