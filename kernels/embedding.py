"""Where a step begins: the embeddings of its tokens and the rotations of their positions. Twins: reference.embed and
reference.rotary_tables."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

EMBED_BLOCK = 1024
"""Columns of a row that one program copies."""
TABLE_TILE = 256
"""Angles that one program turns into cosines and sines."""
WARPS = 4


@triton.jit
def copy_rows(
    tokens_ptr, drawn_ptr, table_ptr, out_ptr, scale, size,
    HAS_DRAWN: tl.constexpr, HAS_SCALE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK columns of one token's row of table [vocab, size]; grid: (tokens, blocks)."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens_ptr + row).to(tl.int64)
    if HAS_DRAWN:
        is_drawn = token < 0
        drawn = tl.load(drawn_ptr + (-1 - token), mask=is_drawn, other=0)
        token = tl.where(is_drawn, drawn, token)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < size
    embedded = tl.load(table_ptr + token * size + at, mask=is_in, other=0.0)
    if HAS_SCALE:
        embedded = (embedded.to(tl.float32) * scale).to(embedded.dtype)
    tl.store(out_ptr + row * size + at, embedded, mask=is_in)


@triton.jit(do_not_specialize=["n_tokens"])
def turn(
    positions_ptr, inv_freq_ptr, cos_ptr, sin_ptr, n_tokens, factor,
    HALF: tl.constexpr, BLOCK_HALF: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Both tables of BLOCK_T positions; grid: (ceil(tokens / BLOCK_T),).

    Angles reach a million: tl.cos and tl.sin are libdevice's precise ones, which reduce any float32 exactly.
    """
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    half = tl.arange(0, BLOCK_HALF)
    is_half = half < HALF
    is_in = (token < n_tokens)[:, None] & is_half[None, :]
    position = tl.load(positions_ptr + token, mask=token < n_tokens, other=0).to(tl.float32)
    inv_freq = tl.load(inv_freq_ptr + half, mask=is_half, other=0.0)
    angle = position[:, None] * inv_freq[None, :]
    cos, sin = tl.cos(angle) * factor, tl.sin(angle) * factor
    target = token.to(tl.int64)[:, None] * (2 * HALF) + half[None, :]
    tl.store(cos_ptr + target, cos, mask=is_in)
    tl.store(cos_ptr + target + HALF, cos, mask=is_in)
    tl.store(sin_ptr + target, -sin, mask=is_in)
    tl.store(sin_ptr + target + HALF, sin, mask=is_in)


def embed(tokens: torch.Tensor, drawn: torch.Tensor | None, table: torch.Tensor, scale: float | None) -> torch.Tensor:
    """See reference.embed."""
    n, size = len(tokens), table.shape[1]
    out = torch.empty(n, size, dtype=table.dtype, device=table.device)
    block = min(EMBED_BLOCK, triton.next_power_of_2(size))
    rounded = 1.0 if scale is None else torch.tensor(scale, dtype=table.dtype).item()
    copy_rows[(n, triton.cdiv(size, block))](
        tokens, tokens if drawn is None else drawn, table, out, rounded, size,
        HAS_DRAWN=drawn is not None, HAS_SCALE=scale is not None, BLOCK=block, num_warps=WARPS,
    )  # fmt: skip
    return out


def rotary_tables(positions: torch.Tensor, inv_freq: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.rotary_tables."""
    n, half = len(positions), len(inv_freq)
    cos, sin = (torch.empty(n, 2 * half, dtype=torch.float32, device=positions.device) for _ in range(2))
    block_half = triton.next_power_of_2(half)
    block_t = max(1, TABLE_TILE // block_half)
    turn[(triton.cdiv(n, block_t),)](
        positions, inv_freq, cos, sin, n, factor, HALF=half, BLOCK_HALF=block_half, BLOCK_T=block_t, num_warps=WARPS
    )
    return cos, sin
