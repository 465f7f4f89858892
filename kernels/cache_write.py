"""Norm and rotate q and k, write K and V into their pages, in one launch. Twin: reference.rope_and_cache."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl


@triton.jit
def write(
    qkv_ptr, cos_ptr, sin_ptr, q_norm_ptr, k_norm_ptr, slots_ptr, q_ptr, pages_ptr, page_stride, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_HALF: tl.constexpr, PAGE: tl.constexpr,
    HAS_NORM: tl.constexpr,
):  # fmt: skip
    """One head of one token; grid: (tokens, HEADS + 2 KV_HEADS). The halves of a head are kept apart, as rotation pairs
    them."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half = tl.arange(0, BLOCK_HALF)
    is_half = half < HEAD_DIM // 2
    source = qkv_ptr + (token * (HEADS + 2 * KV_HEADS) + head) * HEAD_DIM
    low = tl.load(source + half, mask=is_half, other=0.0)
    high = tl.load(source + HEAD_DIM // 2 + half, mask=is_half, other=0.0)
    dtype = low.dtype
    if head < HEADS + KV_HEADS:
        if HAS_NORM:
            weights = k_norm_ptr
            if head < HEADS:
                weights = q_norm_ptr
            wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
            square = tl.sum(wide_low * wide_low) + tl.sum(wide_high * wide_high)
            inverse = 1.0 / tl.sqrt(square / HEAD_DIM + eps)
            low_weight = tl.load(weights + half, mask=is_half, other=0.0).to(tl.float32)
            high_weight = tl.load(weights + HEAD_DIM // 2 + half, mask=is_half, other=0.0).to(tl.float32)
            # Rounded to the dtype before the weight, as the definition has it.
            low = ((wide_low * inverse).to(dtype).to(tl.float32) * low_weight).to(dtype)
            high = ((wide_high * inverse).to(dtype).to(tl.float32) * high_weight).to(dtype)
        cos = tl.load(cos_ptr + token * HEAD_DIM + half, mask=is_half, other=0.0)
        sin = tl.load(sin_ptr + token * HEAD_DIM + HEAD_DIM // 2 + half, mask=is_half, other=0.0)
        turned_low = low.to(tl.float32) * cos - high.to(tl.float32) * sin
        turned_high = high.to(tl.float32) * cos + low.to(tl.float32) * sin
        low, high = turned_low.to(dtype), turned_high.to(dtype)
    if head < HEADS:
        target = q_ptr + (token * HEADS + head) * HEAD_DIM
        tl.store(target + half, low, mask=is_half)
        tl.store(target + HEAD_DIM // 2 + half, high, mask=is_half)
    else:
        slot = tl.load(slots_ptr + token)
        if slot >= 0:
            # Heads behind the queries are those of K, then those of V: the order of a page.
            target = pages_ptr + slot // PAGE * page_stride + ((head - HEADS) * PAGE + slot % PAGE) * HEAD_DIM
            tl.store(target + half, low, mask=is_half)
            tl.store(target + HEAD_DIM // 2 + half, high, mask=is_half)


def rope_and_cache(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pages: torch.Tensor,
    slots: torch.Tensor,
    q_norm: torch.Tensor | None,
    k_norm: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """See reference.rope_and_cache."""
    n, all_heads, head_dim = qkv.shape
    n_kv_heads = pages.shape[2]
    n_heads = all_heads - 2 * n_kv_heads
    q = torch.empty(n, n_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    write[(n, all_heads)](
        qkv, cos, sin, qkv if q_norm is None else q_norm, qkv if k_norm is None else k_norm, slots, q, pages,
        pages.stride(0), eps,
        HEADS=n_heads, KV_HEADS=n_kv_heads, HEAD_DIM=head_dim, BLOCK_HALF=triton.next_power_of_2(head_dim // 2),
        PAGE=pages.shape[3], HAS_NORM=q_norm is not None,
    )  # fmt: skip
    return q
