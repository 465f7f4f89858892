"""Norm and rotate q and k, write K and V into their pages, in one launch. Twin: reference.rope_and_cache.

Quantised pages take more: the rotated vectors come out as plain tensors, torch rounds them (quantized_pages), and a
second kernel copies the bytes.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

from kernels.quantized_pages import FORMATS, block_size_of, quantize, scales_of

TILE = 1024
"""Elements of half heads that one program of `write` handles; 16 bytes of bfloat16 for each of its threads."""
SCATTER_TILE = 2048
WARPS = 4


@triton.jit
def norm_halves(low, high, is_query, q_norm_ptr, k_norm_ptr, half, is_half, eps, HEAD_DIM: tl.constexpr):
    """Heads [BLOCK_H, half], each over its own HEAD_DIM numbers, with the weights of q or of k."""
    dtype = low.dtype
    wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
    square = tl.sum(wide_low * wide_low + wide_high * wide_high, 1)
    inverse = (1.0 / tl.sqrt(square / HEAD_DIM + eps))[:, None]
    low_q, low_k = tl.load(q_norm_ptr + half, mask=is_half), tl.load(k_norm_ptr + half, mask=is_half)
    high_q = tl.load(q_norm_ptr + HEAD_DIM // 2 + half, mask=is_half)
    high_k = tl.load(k_norm_ptr + HEAD_DIM // 2 + half, mask=is_half)
    low_weight = tl.where(is_query, low_q[None, :], low_k[None, :]).to(tl.float32)
    high_weight = tl.where(is_query, high_q[None, :], high_k[None, :]).to(tl.float32)
    # Rounded to the dtype before the weight, as the definition has it.
    low = ((wide_low * inverse).to(dtype).to(tl.float32) * low_weight).to(dtype)
    high = ((wide_high * inverse).to(dtype).to(tl.float32) * high_weight).to(dtype)
    return low, high


@triton.jit
def write(
    qkv_ptr, cos_ptr, sin_ptr, q_norm_ptr, k_norm_ptr, slots_ptr, q_ptr, kv_ptr, page_stride, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_HALF: tl.constexpr,
    BLOCK_H: tl.constexpr, PAGE: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    """BLOCK_H heads of one token, of q, k and v alike; grid: (tokens, ceil((HEADS + 2 KV_HEADS) / BLOCK_H)). The halves
    of a head are kept apart, as rotation pairs them. kv: pages, or with PAGE 0 plain, [tokens, 2 KV_HEADS, HEAD_DIM].
    """
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)[:, None]
    half = tl.arange(0, BLOCK_HALF)
    is_half = half < HEAD_DIM // 2
    is_in = (head < HEADS + 2 * KV_HEADS) & is_half[None, :]
    source = qkv_ptr + (token * (HEADS + 2 * KV_HEADS) + head) * HEAD_DIM + half[None, :]
    low = tl.load(source, mask=is_in, other=0.0)
    high = tl.load(source + HEAD_DIM // 2, mask=is_in, other=0.0)
    dtype = low.dtype
    cos = tl.load(cos_ptr + token * HEAD_DIM + half, mask=is_half, other=0.0)[None, :]
    sin = tl.load(sin_ptr + token * HEAD_DIM + HEAD_DIM // 2 + half, mask=is_half, other=0.0)[None, :]
    normed_low, normed_high = low, high
    if HAS_NORM:
        normed_low, normed_high = norm_halves(
            low, high, head < HEADS, q_norm_ptr, k_norm_ptr, half, is_half, eps, HEAD_DIM
        )
    wide_low, wide_high = normed_low.to(tl.float32), normed_high.to(tl.float32)
    is_turned = head < HEADS + KV_HEADS
    low = tl.where(is_turned, (wide_low * cos - wide_high * sin).to(dtype), low)
    high = tl.where(is_turned, (wide_high * cos + wide_low * sin).to(dtype), high)
    q_target = q_ptr + (token * HEADS + head) * HEAD_DIM + half[None, :]
    is_query = is_in & (head < HEADS)
    tl.store(q_target, low, mask=is_query)
    tl.store(q_target + HEAD_DIM // 2, high, mask=is_query)
    # Heads behind the queries are those of K, then those of V: the order of a page.
    n_kept = HEADS + 2 * KV_HEADS
    kv_head = head - HEADS
    if PAGE > 0:
        slot = tl.load(slots_ptr + token).to(tl.int64)
        n_kept = tl.where(slot >= 0, n_kept, 0)
        target = kv_ptr + slot // PAGE * page_stride + (kv_head * PAGE + slot % PAGE) * HEAD_DIM + half[None, :]
    else:
        target = kv_ptr + (token * (2 * KV_HEADS) + kv_head) * HEAD_DIM + half[None, :]
    is_kept = (head >= HEADS) & (head < n_kept) & is_half[None, :]
    tl.store(target, low, mask=is_kept)
    tl.store(target + HEAD_DIM // 2, high, mask=is_kept)


@triton.jit
def scatter(
    elements_ptr, scales_ptr, slots_ptr, pages_ptr, page_scales_ptr, page_stride, head_stride, scale_page_stride,
    scale_head_stride, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_H: tl.constexpr,
    PAGE: tl.constexpr,
):  # fmt: skip
    """BLOCK_H heads of K and V of one token into quantised pages; grid: (tokens, ceil(HEADS / BLOCK_H)). elements:
    bytes [tokens, HEADS, HEAD_DIM]; scales: float32 [tokens, HEADS]; HEADS: of K and V together."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    column = tl.arange(0, BLOCK_D)
    slot = tl.load(slots_ptr + token).to(tl.int64)
    if slot >= 0:
        is_head = head < HEADS
        is_in = is_head[:, None] & (column < HEAD_DIM)[None, :]
        source = elements_ptr + (token * HEADS + head[:, None]) * HEAD_DIM + column[None, :]
        place = slot // PAGE * page_stride + slot % PAGE * HEAD_DIM
        target = pages_ptr + place + head[:, None] * head_stride + column[None, :]
        tl.store(target, tl.load(source, mask=is_in, other=0), mask=is_in)
        scales = tl.load(scales_ptr + token * HEADS + head, mask=is_head, other=0.0)
        scale_place = slot // PAGE * scale_page_stride + slot % PAGE
        tl.store(page_scales_ptr + scale_place + head * scale_head_stride, scales, mask=is_head)


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
    """See reference.rope_and_cache; all tensors are contiguous."""
    n, all_heads, head_dim = qkv.shape
    n_kv_heads = pages.shape[2]
    n_heads = all_heads - 2 * n_kv_heads
    is_quantized = pages.dtype in FORMATS
    q = torch.empty(n, n_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    kv = torch.empty(n, 2 * n_kv_heads, head_dim, dtype=qkv.dtype, device=qkv.device) if is_quantized else pages
    block_half = triton.next_power_of_2(head_dim // 2)
    block_h = min(triton.next_power_of_2(all_heads), max(1, TILE // block_half))
    write[(n, triton.cdiv(all_heads, block_h))](
        qkv, cos, sin, qkv if q_norm is None else q_norm, qkv if k_norm is None else k_norm, slots, q, kv,
        pages.stride(0), eps,
        HEADS=n_heads, KV_HEADS=n_kv_heads, HEAD_DIM=head_dim, BLOCK_HALF=block_half, BLOCK_H=block_h,
        PAGE=0 if is_quantized else pages.shape[3], HAS_NORM=q_norm is not None, num_warps=WARPS,
    )  # fmt: skip
    if is_quantized:
        _scatter(*quantize(kv, pages.dtype), slots, pages)
    return q


def _scatter(elements: torch.Tensor, scales: torch.Tensor, slots: torch.Tensor, pages: torch.Tensor) -> None:
    """elements [n, 2 kv_heads, d] of the pages' dtype, scales float32 [n, 2 kv_heads]."""
    n, heads, head_dim = elements.shape
    block_size = block_size_of(pages)
    page_scales = scales_of(pages, block_size)
    block_d = triton.next_power_of_2(head_dim)
    block_h = min(triton.next_power_of_2(heads), max(1, SCATTER_TILE // block_d))
    scatter[(n, triton.cdiv(heads, block_h))](
        elements.view(torch.uint8), scales, slots, pages.view(torch.uint8), page_scales,
        pages.stride(0), pages.stride(2), page_scales.stride(0), page_scales.stride(2),
        HEADS=heads, HEAD_DIM=head_dim, BLOCK_D=block_d, BLOCK_H=block_h, PAGE=block_size, num_warps=WARPS,
    )  # fmt: skip
