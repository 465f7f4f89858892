"""The fast CPU forms of the kernels that step time depends on. `reference.py` defines what they compute.

On models of a few million parameters a step is mostly the cost of calling torch, so everything that is the same for all
layers of a step (which pages to gather, which keys are hidden) is prepared once, and a layer is one gather and one SDPA
per group.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention_plan import check_trees
from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec
from kernels.reference import rotate

BATCHED_QUERIES = 16
"""Rows with at most this many queries share a group; a longer chunk is work enough for a call of its own."""
PADDING_LIMIT = 2.0
"""A group is closed before its padded pages exceed this multiple of the pages its rows need."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See reference.rms_norm."""
    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.add_rms_norm."""
    total = x + residual
    return torch.nn.functional.rms_norm(total, (x.shape[-1],), weight, eps), total


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
    """See reference.rope_and_cache; here slots are vectors of the flattened pages, int64 [n * 2 * kv_heads]
    (`write_index`)."""
    n, _, head_dim = qkv.shape
    n_kv_heads = pages.shape[2]
    n_heads = qkv.shape[1] - 2 * n_kv_heads
    rotated = qkv[:, : n_heads + n_kv_heads]
    if q_norm is not None and k_norm is not None:
        rotated = torch.cat(
            (rms_norm(rotated[:, :n_heads], q_norm, eps), rms_norm(rotated[:, n_heads:], k_norm, eps)), 1
        )
    rotated = rotate(rotated, cos, sin)
    kv = torch.cat((rotated[:, n_heads:], qkv[:, n_heads + n_kv_heads :]), 1)
    pages.view(-1, head_dim).index_copy_(0, slots, kv.view(n * 2 * n_kv_heads, head_dim))
    return rotated[:, :n_heads]


def write_index(slots: torch.Tensor, n_kv_heads: int, block_size: int) -> torch.Tensor:
    """Where the K and V vectors of each slot lie in pages.view(-1, head_dim): int64 [n] to [n * 2 * kv_heads].

    page * block_size + offset  ->  ((page * 2 + k_or_v) * kv_heads + head) * block_size + offset
    """
    heads = torch.arange(2 * n_kv_heads) * block_size
    first = (slots // block_size) * (2 * n_kv_heads * block_size) + slots % block_size
    return (first[:, None] + heads).flatten()


def add_page_sums(sums: torch.Tensor, states: torch.Tensor, segments: torch.Tensor) -> None:
    """See reference.add_page_sums; index_add_ adds in the order of the rows on a CPU. In numpy where torch would cost
    more for the call than for the work."""
    if len(segments) == 1:
        [(page, first, count, is_begun)] = segments.tolist()
        if count == 1:  # a single request decodes: a small model feels every call
            total = sums[page].zero_() if is_begun else sums[page]
            total.add_(states[first])
            return
    pages, firsts, counts, begins = segments.numpy().astype(np.int64).T
    if begins.any():
        sums[torch.from_numpy(pages[(begins > 0) & (counts > 0)])] = 0.0
    if len(pages) > 1:
        # In the order of the flat batch, each token's page is that of the segment it falls into.
        order = firsts.argsort(kind="stable")
        pages, firsts, counts = pages[order], firsts[order], counts[order]
    if counts.sum() < len(states):  # some tokens are in no segment: a draft's
        offsets = np.arange(counts.sum()) + (firsts - (counts.cumsum() - counts)).repeat(counts)
        states = states[torch.from_numpy(offsets)]
    sums.index_add_(0, torch.from_numpy(pages.repeat(counts)), states.float())


def move_kv(
    pages: torch.Tensor, slots: torch.Tensor, path: torch.Tensor, starts: torch.Tensor, n_accepted: torch.Tensor
) -> None:
    """See reference_verify.move_kv; here pages are plain. All are read before any is written: a path ascends, so none
    is read where an earlier one was written."""
    slot_of, moves = slots.tolist(), list[tuple[int, int]]()
    for nodes, count, first in zip(path.tolist(), n_accepted.tolist(), starts.tolist(), strict=False):
        sources, targets = [slot_of[first + node] for node in nodes[:count]], slot_of[first + 1 : first + 1 + count]
        moves += [move for move in zip(sources, targets, strict=True) if move[0] != move[1] and min(move) >= 0]
    if not moves:
        return
    _, _, n_kv_heads, block_size, head_dim = pages.shape
    at = np.array(moves).T
    at += at // block_size * ((2 * n_kv_heads - 1) * block_size)  # see write_index
    vectors = at[..., None] + np.arange(0, 2 * n_kv_heads * block_size, block_size)
    read, written = torch.from_numpy(vectors.reshape(2, -1))
    flat = pages.view(-1, head_dim)
    flat.index_copy_(0, written, flat.index_select(0, read))


def check_plain(batch: RaggedBatch, spec: AttentionSpec, device: torch.device) -> None:
    """Raise ValueError for what these kernels do not attend to: ALiBi, a GPU, trees that no step can have."""
    if device.type != "cpu":
        raise ValueError(f"device is {device}: these kernels compute on a CPU")
    if spec.alibi is not None:
        raise ValueError("there are ALiBi slopes: the kernels of a CPU do not attend with them")
    check_trees(batch)


def check_sinks(sinks: torch.Tensor | None) -> None:
    """Raise ValueError where there are any."""
    if sinks is not None:
        raise ValueError("sinks are given: the kernels of a CPU do not attend to them")


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive rows with the same number of queries, attended to in one call.

    gather: pages as vectors of pages.view(-1, block_size * head_dim), in the order [2, row, kv_head, page]. keys: how
    many of the gathered keys count (less than all only for a single row). hidden: 0 or -inf, [row, 1, query, key], or
    None where nothing is hidden; causal: nothing but the future is.
    """

    first_token: int
    n_rows: int
    n_queries: int
    keys: slice
    gather: torch.Tensor
    hidden: torch.Tensor | None
    is_causal: bool


class PagedAttention:
    """Attention of one step, for all its layers: prepared once from the batch, then called with each layer's q and
    pages.

    Rows are grouped in the order of the batch, so sort rows by queries and context to get few groups.
    """

    def __init__(self, batch: RaggedBatch, spec: AttentionSpec, device: torch.device) -> None:
        """Raises ValueError for ALiBi and a device that is no CPU."""
        check_plain(batch, spec, device)
        self._batch, self._n_kv_heads, self._scale, self._softcap = batch, spec.n_kv_heads, spec.scale, spec.softcap
        self._groups = self._plan(spec.window)

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """See reference.paged_attention. Raises ValueError for sinks."""
        check_sinks(sinks)
        outputs = [self._attend(group, q, pages) for group in self._groups]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _attend(self, group: _Group, q: torch.Tensor, pages: torch.Tensor) -> torch.Tensor:
        rows, n, kv_heads = group.n_rows, group.n_queries, self._n_kv_heads
        heads, head_dim = q.shape[1:]
        gathered = pages.view(-1, pages.shape[3] * head_dim).index_select(0, group.gather)
        keys, values = gathered.view(2, rows, kv_heads, -1, head_dim)[:, :, :, group.keys]
        queries = q[group.first_token : group.first_token + rows * n].view(
            rows, n, kv_heads, heads // kv_heads, head_dim
        )
        if rows == 1 and n > 1:
            return self._attend_chunk(group, queries[0], keys[0], values[0])
        # Few queries: fold the query heads of a KV head into query positions, so that its keys are read once for all of
        # them.
        folded = queries.permute(0, 2, 3, 1, 4).reshape(rows, kv_heads, -1, head_dim)
        hidden = group.hidden
        if hidden is not None and n > 1:
            hidden = hidden.repeat(1, 1, heads // kv_heads, 1)
        # torch's bfloat16 SDPA takes 2.5 times as long as its float32 one for so few queries; widening costs less.
        out = self._softmax_mean(folded.float(), keys.float(), values.float(), hidden, False).to(q.dtype)
        return out.view(rows, kv_heads, -1, n, head_dim).permute(0, 3, 1, 2, 4).reshape(rows * n, heads, head_dim)

    def _attend_chunk(
        self, group: _Group, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """One row of many queries [n, kv_head, group, d] over keys and values [kv_head, key, d]."""
        n, kv_heads, per_kv_head, head_dim = queries.shape
        shared = (
            kv_heads,
            per_kv_head,
            keys.shape[1],
            head_dim,
        )  # query heads of a KV head share its keys: stride 0, no copy
        hidden = None if group.hidden is None else group.hidden.to(queries.dtype)
        out = self._softmax_mean(
            queries.permute(1, 2, 0, 3),
            keys[:, None].expand(shared),
            values[:, None].expand(shared),
            hidden,
            group.is_causal,
        )
        return out.permute(2, 0, 1, 3).reshape(n, kv_heads * per_kv_head, head_dim)

    def _softmax_mean(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor | None, is_causal: bool
    ) -> torch.Tensor:
        """q [a, b, query, d] over k and v [a, b, key, d]; torch's SDPA has no soft cap, so there the scores are written
        out."""
        if self._softcap is None:
            return scaled_dot_product_attention(q, k, v, attn_mask=hidden, is_causal=is_causal, scale=self._scale)
        scores = (q.float() @ k.float().mT).mul_(self._scale / self._softcap).tanh_().mul_(self._softcap)
        if hidden is not None:
            scores += hidden
        if is_causal:
            scores.masked_fill_(torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(1), float("-inf"))
        return (scores.softmax(-1) @ v.float()).to(q.dtype)

    def _plan(self, window: int | None) -> list[_Group]:
        batch, groups = self._batch, list[_Group]()
        first_token = first_row = 0
        while first_row < len(batch.query_lens):
            n, end = batch.query_lens[first_row], first_row
            needed = most = 0
            while end < len(batch.query_lens) and batch.query_lens[end] == n:
                pages = self._last_page(end) - self._first_page(end, window)
                if end > first_row and (
                    n > BATCHED_QUERIES or max(most, pages) * (end - first_row + 1) > PADDING_LIMIT * (needed + pages)
                ):
                    break
                needed, most, end = needed + pages, max(most, pages), end + 1
            groups.append(self._group(range(first_row, end), first_token, most, window))
            first_token += n * (end - first_row)
            first_row = end
        return groups

    def _first_page(self, row: int, window: int | None) -> int:
        """The first page that a query of the row can see."""
        if window is None:
            return 0
        first_query = self._batch.context_lens[row] - self._batch.query_lens[row]
        return max(0, first_query - window + 1) // self._batch.block_size

    def _last_page(self, row: int) -> int:
        return self._batch.n_pages(row)

    def _group(self, rows: range, first_token: int, n_pages: int, window: int | None) -> _Group:
        batch, n, block_size = self._batch, self._batch.query_lens[rows[0]], self._batch.block_size
        tables, first_keys = [], []
        for row in rows:
            first = self._first_page(row, window)
            table = batch.block_tables[row][first : self._last_page(row)]
            tables.append(table + (table[0],) * (n_pages - len(table)))
            first_keys.append(first * block_size)
        vectors = torch.arange(2 * self._n_kv_heads).view(2, 1, self._n_kv_heads, 1)
        gather = torch.tensor(tables).view(1, len(rows), 1, n_pages) * (2 * self._n_kv_heads) + vectors
        n_keys = n_pages * block_size
        if len(rows) == 1:
            n_keys = batch.context_lens[rows[0]] - first_keys[0]
            if n == 1:  # one query sees all keys of the window: cut them out, nothing to hide
                visible = slice(0 if window is None else max(0, n_keys - window), n_keys)
                return _Group(first_token, 1, n, visible, gather.flatten(), None, False)
            is_plain = not (batch.trees and batch.trees[rows[0]])
            if n == n_keys and is_plain and (window is None or n <= window):  # a whole prompt in one chunk
                return _Group(first_token, 1, n, slice(0, n_keys), gather.flatten(), None, True)
        contexts = torch.tensor([batch.context_lens[row] for row in rows])
        query_at = contexts[:, None] - n + torch.arange(n)  # [row, query]
        key_at = torch.tensor(first_keys)[:, None] + torch.arange(n_keys)  # [row, key]
        is_hidden = key_at[:, None, :] > query_at[:, :, None]
        if window is not None:
            is_hidden |= key_at[:, None, :] <= query_at[:, :, None] - window
        for index, tree in enumerate(batch.trees[rows[0] : rows[-1] + 1]):
            if tree:
                root = batch.context_lens[rows[index]] - len(tree)
                is_hidden[index, n - len(tree) :] = _hidden_in_tree(tree, root, key_at[index], window)
        hidden = torch.zeros(is_hidden.shape).masked_fill_(is_hidden, float("-inf"))[:, None]
        return _Group(first_token, len(rows), n, slice(0, n_keys), gather.flatten(), hidden, False)


def _hidden_in_tree(tree: tuple[int, ...], root: int, key_at: torch.Tensor, window: int | None) -> torch.Tensor:
    """What the nodes of a tree do not see of the keys at the places key_at, consecutive ones that begin before the
    root's or there: bool [nodes, keys]. Windows go by position: before the root that is the place, behind it the
    depth."""
    unsigned = [word & (1 << 64) - 1 for word in tree]
    words = torch.from_numpy(np.array(unsigned, dtype=np.uint64).view(np.int64))
    node = key_at - root
    is_node = (node >= 0) & (node < len(tree))
    number = node.clamp(0, len(tree) - 1)
    is_hidden: torch.Tensor = ~torch.where(is_node, (words[:, None] >> number & 1).bool(), node < 0)
    if window is not None:
        depths = torch.tensor([word.bit_count() - 1 for word in unsigned])
        is_hidden |= torch.where(is_node, depths[number], node) <= depths[:, None] - window
    return is_hidden
