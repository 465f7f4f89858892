"""Paged attention in Triton: one body for prompt chunks, decodes and drafts to verify. Twin: reference.paged_attention.

A program owns BLOCK_Q queries of one row and one KV head, with all query heads that share it: BLOCK_Q * GROUP rows of
one tl.dot, so that a page is read once for the whole group. Its keys are either all that the queries see, or, where
there are too few programs to fill the device, one split of fixed length; splits are merged by their log-sum-exp
(FlashDecoding; Dao et al., 2023). Splits begin at fixed keys, so that a row's arithmetic depends on its batch only in
whether it is split at all.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec

LOG2_E = 1.4426950408889634


@triton.jit
def attend(
    q_ptr, pages_ptr, out_ptr, lse_ptr, tables_ptr, starts_ptr, contexts_ptr, block_rows_ptr, block_queries_ptr,
    scale_log2, table_stride, page_stride, n_tokens,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WINDOW: tl.constexpr, SPLIT: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """q [n, KV_HEADS * GROUP, HEAD_DIM] to out: of q's shape and dtype with SPLIT 0, else float32 [splits, n, heads,
    HEAD_DIM] with lse [splits, n, heads] (base 2). Grid: (blocks of queries, KV heads, splits)."""
    block, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(block_rows_ptr + block)
    first_query = tl.load(block_queries_ptr + block)
    start = tl.load(starts_ptr + row)
    n = tl.load(starts_ptr + row + 1) - start
    context = tl.load(contexts_ptr + row)

    packed = tl.arange(0, BLOCK_M)
    query = first_query + packed // GROUP
    is_query = (packed < BLOCK_Q * GROUP) & (query < n)
    position = context - n + query
    dims = tl.arange(0, BLOCK_D)
    is_dim = dims < HEAD_DIM
    head = kv_head * GROUP + packed % GROUP
    flat = (start + query).to(tl.int64) * (KV_HEADS * GROUP) + head  # (token, head) as one index
    q = tl.load(q_ptr + flat[:, None] * HEAD_DIM + dims[None, :], mask=is_query[:, None] & is_dim[None, :], other=0.0)

    last_key = context - n + tl.minimum(first_query + BLOCK_Q, n)
    first_key = 0
    if WINDOW > 0:
        first_key = tl.maximum(context - n + first_query - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    if SPLIT > 0:
        first_key = tl.maximum(first_key, split * SPLIT)
        last_key = tl.minimum(last_key, (split + 1) * SPLIT)

    best = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for at in range(first_key, last_key, BLOCK_N):
        key = at + tl.arange(0, BLOCK_N)
        is_key = key < last_key
        page = tl.load(tables_ptr + row * table_stride + key // PAGE, mask=is_key, other=0).to(tl.int64)
        rows = page * page_stride + (kv_head * PAGE + key % PAGE) * HEAD_DIM
        k = tl.load(pages_ptr + rows[None, :] + dims[:, None], mask=is_key[None, :] & is_dim[:, None], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * scale_log2
        if SOFTCAP > 0:  # tanh(x) = 1 - 2 / (e^2x + 1), which is right at both infinities; scores stay in base 2
            scores = SOFTCAP * 1.4426950408889634 * (1.0 - 2.0 / (tl.exp2(scores * (2.0 / SOFTCAP)) + 1.0))
        is_seen = is_key[None, :] & (key[None, :] <= position[:, None])
        if WINDOW > 0:
            is_seen = is_seen & (key[None, :] > position[:, None] - WINDOW)
        scores = tl.where(is_seen, scores, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        shift = tl.where(new_best == float("-inf"), 0.0, new_best)  # nothing seen yet: -inf - -inf would be NaN
        weights = tl.exp2(scores - shift[:, None])
        decay = tl.exp2(best - shift)
        values_at = rows + KV_HEADS * PAGE * HEAD_DIM  # V lies behind K of all heads
        v = tl.load(pages_ptr + values_at[:, None] + dims[None, :], mask=is_key[:, None] & is_dim[None, :], other=0.0)
        total = total * decay + tl.sum(weights, 1)
        acc = acc * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        best = new_best

    out = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    if SPLIT > 0:
        flat += split.to(tl.int64) * n_tokens * (KV_HEADS * GROUP)
        lse = tl.where(total == 0.0, float("-inf"), best + tl.log2(tl.where(total == 0.0, 1.0, total)))
        tl.store(lse_ptr + flat, lse, mask=is_query)
    out_at = out_ptr + flat[:, None] * HEAD_DIM + dims[None, :]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=is_query[:, None] & is_dim[None, :])


@triton.jit
def merge_splits(
    partial_ptr, lse_ptr, out_ptr, n_vectors, n_splits, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Weighted mean of the splits of one (token, head) vector: partial [splits, vectors, HEAD_DIM] to out [vectors,
    HEAD_DIM]."""
    vector = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    is_dim = dims < HEAD_DIM
    best = float("-inf")
    for split in range(n_splits):
        best = tl.maximum(best, tl.load(lse_ptr + split * n_vectors + vector))
    total = 0.0
    acc = tl.zeros([BLOCK_D], tl.float32)
    for split in range(n_splits):
        weight = tl.exp2(
            tl.load(lse_ptr + split * n_vectors + vector) - best
        )  # an empty split has -inf and weighs nothing
        part = tl.load(partial_ptr + (split * n_vectors + vector) * HEAD_DIM + dims, mask=is_dim, other=0.0)
        acc += weight * part
        total += weight
    tl.store(out_ptr + vector * HEAD_DIM + dims, (acc / total).to(out_ptr.dtype.element_ty), mask=is_dim)


class PagedAttention:
    """Attention of one step for all its layers, with the signature of cpu.PagedAttention."""

    def __init__(
        self, batch: RaggedBatch, spec: AttentionSpec, device: torch.device, *, split_keys: int = 512, block_n: int = 32
    ) -> None:  # fmt: skip
        """split_keys: length of a split in keys, a multiple of block_n. block_n: keys per tl.dot."""
        self._batch, self._n_kv_heads, self._scale, self._device = batch, spec.n_kv_heads, spec.scale, device
        self._softcap, self._split_keys, self._block_n, self._window = spec.softcap, split_keys, block_n, spec.window
        self._starts, self._tables = batch.query_starts(device), batch.padded_tables(device)
        self._contexts = torch.tensor(batch.context_lens, dtype=torch.int32, device=device)
        self._blocks: tuple[int, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002
        """See reference.paged_attention."""
        n_tokens, n_heads, head_dim = q.shape
        group = n_heads // self._n_kv_heads
        most = 64 if head_dim <= 128 else 32  # what the registers hold of a wider accumulator
        block_q = max(1, (16 if max(self._batch.query_lens) <= 16 else most) // group)
        block_m = max(16, triton.next_power_of_2(block_q * group))
        rows, queries = self._query_blocks(block_q)
        longest = max(self._batch.context_lens)
        # A step of decodes has one block of queries a row: split long contexts, so that the whole device works on them.
        is_split = block_m * len(rows) <= 1024 and longest > self._split_keys
        n_splits = -(-longest // self._split_keys) if is_split else 1
        shape = (n_splits, n_tokens, n_heads, head_dim) if is_split else q.shape
        out = torch.empty(shape, dtype=torch.float32 if is_split else q.dtype, device=q.device)
        lse = torch.empty((n_splits, n_tokens, n_heads) if is_split else (1,), dtype=torch.float32, device=q.device)
        block_d = max(16, triton.next_power_of_2(head_dim))
        attend[(len(rows), self._n_kv_heads, n_splits)](
            q.contiguous(), pages, out, lse, self._tables, self._starts, self._contexts, rows, queries,
            self._scale * LOG2_E, self._tables.stride(0), pages.stride(0), n_tokens,
            GROUP=group, KV_HEADS=self._n_kv_heads, HEAD_DIM=head_dim, BLOCK_D=block_d, PAGE=pages.shape[3],
            BLOCK_Q=block_q, BLOCK_M=block_m, BLOCK_N=self._block_n, WINDOW=self._window or 0,
            SPLIT=self._split_keys if is_split else 0, SOFTCAP=self._softcap or 0.0,
        )  # fmt: skip
        if not is_split:
            return out
        merged = torch.empty_like(q)
        vectors = n_tokens * n_heads
        merge_splits[(vectors,)](out, lse, merged, vectors, n_splits, HEAD_DIM=head_dim, BLOCK_D=block_d)
        return merged

    def _query_blocks(self, block_q: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and first query of every block of block_q queries: int32 [blocks] each, made once a step."""
        if self._blocks is None or self._blocks[0] != block_q:
            blocks = [(row, first) for row, n in enumerate(self._batch.query_lens) for first in range(0, n, block_q)]
            rows, queries = torch.tensor(blocks, dtype=torch.int32, device=self._device).unbind(1)
            self._blocks = (block_q, rows.contiguous(), queries.contiguous())
        return self._blocks[1:]
