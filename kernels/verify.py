"""Which drafted tokens are accepted, and their keys and values moved into place. Twins: reference_verify."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

from kernels.quantized_pages import FORMATS, block_size_of, scales_of
from kernels.reference_verify import ACCEPT_SALT, DRAW_SALT
from kernels.triton_noise import gumbel_noise, uniform

ACCEPT_SALT_SIGNED = tl.constexpr(ACCEPT_SALT)
DRAW_SALT_SIGNED = tl.constexpr(DRAW_SALT)

WALK_WARPS = 16
"""A rejected child is a pass over the vocabulary by one program: as many loads at once as one has room for."""
WALK_BLOCK = 8192
DRAW_BLOCK = 1024
DRAW_WARPS = 4
MATCH_WARPS = 1
MOVE_WARPS = 1


@triton.jit(do_not_specialize=["path_size"])
def longest_match(
    tokens_ptr, parents_ptr, sampled_ptr, starts_ptr, accepted_ptr, path_ptr, path_size,
    BLOCK: tl.constexpr, LOG_BLOCK: tl.constexpr,
):  # fmt: skip
    """The accepted path of one row of at most path_size + 1 <= BLOCK = 2^LOG_BLOCK nodes; grid: (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.load(starts_ptr + row).to(tl.int64)
    n_nodes = tl.minimum(tl.load(starts_ptr + row + 1).to(tl.int64) - start, path_size + 1)
    node = tl.arange(0, BLOCK)
    is_drafted = (node > 0) & (node < n_nodes)
    # The root is its own parent. By pointer doubling, `up` becomes the 2^i-th ancestor of every node, and `depth` what
    # lies on the way there: 1 for a match, for a mismatch more than all matches together can make good.
    up = tl.load(parents_ptr + start + node, mask=is_drafted, other=0).to(tl.int32)
    token = tl.load(tokens_ptr + start + node, mask=is_drafted, other=-1)
    drawn = tl.load(sampled_ptr + start + up, mask=is_drafted, other=-2)
    depth = tl.where(token == drawn, 1, -2 * BLOCK)
    depth = tl.where(node == 0, 0, depth)
    for _ in tl.static_range(LOG_BLOCK):
        depth += tl.gather(depth, up, 0)
        up = tl.gather(up, up, 0)
    accepted = tl.max(depth, 0)
    tl.store(accepted_ptr + row, accepted)
    tl.store(
        path_ptr + row * path_size + node, tl.full([BLOCK], -1, tl.int64), mask=(node >= accepted) & (node < path_size)
    )
    at = tl.argmax(depth, 0)
    for index in range(accepted):
        tl.store(path_ptr + row * path_size + accepted - 1 - index, at.to(tl.int64))
        at = tl.load(parents_ptr + start + at).to(tl.int32)


@triton.jit(do_not_specialize=["path_size"])
def walk(
    tokens_ptr, parents_ptr, target_ptr, draft_ptr, draft_of_ptr, keys_ptr, starts_ptr, accepted_ptr, path_ptr,
    last_ptr, vocab, path_size, BLOCK_PATH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Down one tree from the root, child by child; grid: (rows,). Leaves in the target's row of the last accepted node
    what the next token is drawn from, up to a factor, and in `last` which row of it that is (-1: none)."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.load(starts_ptr + row).to(tl.int64)
    n_nodes = tl.minimum(tl.load(starts_ptr + row + 1).to(tl.int64) - start, path_size + 1).to(tl.int32)
    place = tl.arange(0, BLOCK_PATH)
    tl.store(path_ptr + row * path_size + place, tl.full([BLOCK_PATH], -1, tl.int64), mask=place < path_size)
    tl.debug_barrier()
    at = tl.arange(0, BLOCK)
    node, accepted, mass = 0, 0, 1.0
    n_tried = tl.full([], 0, tl.int64)
    # Parents come before children, so one pass over the nodes meets those of every level in turn.
    for child in range(1, n_nodes):
        if tl.load(parents_ptr + start + child) == node:
            token = tl.load(tokens_ptr + start + child)
            draft_row = tl.load(draft_of_ptr + start + child).to(tl.int64)
            has_q = draft_row >= 0
            p_ptr, q_ptr = target_ptr + (start + node) * vocab, draft_ptr + tl.maximum(draft_row, 0) * vocab
            p_of_token = tl.load(p_ptr + token)
            q_of_token = tl.load(q_ptr + token, mask=has_q, other=1.0)
            u = uniform(tl.load(keys_ptr + start + node) ^ ACCEPT_SALT_SIGNED, n_tried)
            is_accepted = u * q_of_token * mass < p_of_token
            if not is_accepted:
                tl.debug_barrier()  # every thread has read p of the token, and all decide alike
                left, n_q = tl.zeros([BLOCK], tl.float32), tl.where(has_q, vocab, 0)
                for first in range(0, vocab, BLOCK):
                    is_in = first + at < vocab
                    p = tl.load(p_ptr + first + at, mask=is_in, other=0.0)
                    q = tl.load(q_ptr + first + at, mask=first + at < n_q, other=0.0)
                    q = tl.where(has_q, q, tl.where(first + at == token, 1.0, 0.0))
                    rest = tl.maximum(p / mass - q, 0.0)
                    tl.store(p_ptr + first + at, rest, mask=is_in)
                    left += rest
                tl.debug_barrier()  # what was written is read by other threads
                mass = tl.sum(left, 0)
                n_tried += 1
                is_accepted = mass == 0.0
            if is_accepted:
                tl.store(path_ptr + row * path_size + accepted, child)
                node, n_tried, mass = child, n_tried * 0, 1.0
                accepted += 1
    tl.store(accepted_ptr + row, accepted)
    tl.store(last_ptr + row, tl.where(n_nodes > 0, start + node, -1))


@triton.jit
def draw_of_block(target_ptr, keys_ptr, last_ptr, scores_ptr, best_ptr, vocab, BLOCK: tl.constexpr):
    """The best score, and its token, among BLOCK tokens of the distribution that a row draws from; grid: (rows,
    blocks), both outputs of that shape."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    last = tl.load(last_ptr + row)
    token = block * BLOCK + tl.arange(0, BLOCK)
    p = tl.load(target_ptr + last * vocab + token, mask=token < tl.where(last >= 0, vocab, 0), other=0.0)
    key = tl.load(keys_ptr + last, mask=last >= 0, other=0) ^ DRAW_SALT_SIGNED
    scores = tl.log(tl.where(p > 0.0, p, 1.0)) + gumbel_noise(key, token.to(tl.int64))
    scores = tl.where(p > 0.0, scores, float("-inf"))
    out = row * tl.num_programs(1) + block
    best = tl.max(scores, 0)
    tl.store(scores_ptr + out, best)
    tl.store(best_ptr + out, tl.where(best > float("-inf"), block * BLOCK + tl.argmax(scores, 0), -1).to(tl.int64))


@triton.jit(do_not_specialize=["path_size"])
def move(
    pages_ptr, scales_ptr, slots_ptr, path_ptr, starts_ptr, accepted_ptr, page_stride, head_stride, scale_page_stride,
    scale_head_stride, path_size, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PAGE: tl.constexpr,
    HAS_SCALES: tl.constexpr,
):  # fmt: skip
    """The accepted nodes of one row, in one head of K or V; grid: (rows, 2 kv_heads).

    In place, and safe in this order. Parents come before children, so path[j] >= j + 1, and it ascends. Step j writes
    place j + 1. A later step i > j reads place path[i] >= i + 1 > j + 1, which is not written yet; an earlier one may
    have read place j + 1, and is done: every number is loaded and stored by the same thread at every step.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start = tl.load(starts_ptr + row).to(tl.int64)
    column = tl.arange(0, BLOCK_D)
    is_in = column < HEAD_DIM
    for index in range(tl.load(accepted_ptr + row).to(tl.int32)):
        node = tl.load(path_ptr + row * path_size + index)
        if node != index + 1:
            source = tl.load(slots_ptr + start + node).to(tl.int64)
            target = tl.load(slots_ptr + start + 1 + index).to(tl.int64)
            if (source >= 0) & (target >= 0):
                vectors = pages_ptr + head * head_stride
                vector = tl.load(
                    vectors + source // PAGE * page_stride + source % PAGE * HEAD_DIM + column, mask=is_in, other=0
                )
                tl.store(vectors + target // PAGE * page_stride + target % PAGE * HEAD_DIM + column, vector, mask=is_in)
                if HAS_SCALES:
                    scales = scales_ptr + head * scale_head_stride
                    scale = tl.load(scales + source // PAGE * scale_page_stride + source % PAGE)
                    tl.store(scales + target // PAGE * scale_page_stride + target % PAGE, scale)


def accept_coupled(
    tokens: torch.Tensor, parents: torch.Tensor, sampled: torch.Tensor, starts: torch.Tensor, max_nodes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference_verify.accept_coupled."""
    n_accepted, path = _empty(starts, max_nodes)
    block = triton.next_power_of_2(max_nodes)
    longest_match[(len(n_accepted),)](
        tokens, parents, sampled, starts, n_accepted, path, max_nodes - 1,
        BLOCK=block, LOG_BLOCK=block.bit_length() - 1, num_warps=MATCH_WARPS,
    )  # fmt: skip
    return n_accepted, path


def accept_ratio(
    tokens: torch.Tensor,
    parents: torch.Tensor,
    target: torch.Tensor,
    draft: torch.Tensor,
    draft_of: torch.Tensor,
    keys: torch.Tensor,
    starts: torch.Tensor,
    max_nodes: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See reference_verify.accept_ratio. target, contiguous, is overwritten."""
    n_accepted, path = _empty(starts, max_nodes)
    rows, vocab, last = len(n_accepted), target.shape[-1], torch.empty_like(n_accepted)
    walk[(rows,)](
        tokens, parents, target, draft, draft_of, keys, starts, n_accepted, path, last, vocab, max_nodes - 1,
        BLOCK_PATH=triton.next_power_of_2(max_nodes),
        BLOCK=min(WALK_BLOCK, triton.next_power_of_2(vocab)), num_warps=WALK_WARPS,
    )  # fmt: skip
    block = min(DRAW_BLOCK, triton.next_power_of_2(vocab))
    n_blocks = triton.cdiv(vocab, block)
    scores = torch.empty(rows, n_blocks, dtype=torch.float32, device=target.device)
    best = torch.empty(rows, n_blocks, dtype=torch.int64, device=target.device)
    draw_of_block[(rows, n_blocks)](target, keys, last, scores, best, vocab, BLOCK=block, num_warps=DRAW_WARPS)
    return n_accepted, path, best.gather(1, scores.argmax(-1, keepdim=True))[:, 0]


def move_kv(
    pages: torch.Tensor, slots: torch.Tensor, path: torch.Tensor, starts: torch.Tensor, n_accepted: torch.Tensor
) -> None:
    """See reference_verify.move_kv."""
    block_size, is_quantized = block_size_of(pages), pages.dtype in FORMATS
    scales = scales_of(pages, block_size) if is_quantized else pages
    # As integers: what is moved is bits.
    bits = pages.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[pages.itemsize])
    n_heads, head_dim = 2 * pages.shape[2], pages.shape[4]
    move[(len(n_accepted), n_heads)](
        bits, scales, slots, path, starts, n_accepted, pages.stride(0), pages.stride(2), scales.stride(0),
        scales.stride(2), path.stride(0), HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim), PAGE=block_size,
        HAS_SCALES=is_quantized, num_warps=MOVE_WARPS,
    )  # fmt: skip


def _empty(starts: torch.Tensor, max_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = len(starts) - 1
    n_accepted = torch.empty(rows, dtype=torch.int64, device=starts.device)
    return n_accepted, torch.empty(rows, max_nodes - 1, dtype=torch.int64, device=starts.device)
