"""The work list of attention: which queries meet which keys in one program, made on the host. No Triton.

    row of 70 queries, 600 keys      queries 0 … 31     keys 0 … 255 | 256 … 511 | 512 … 561    3 items, 1 merge
    (blocks of 32 queries,           queries 32 … 63    keys 0 … 255 | 256 … 511 | 512 … 593    3 items, 1 merge
    ranges of 256 keys)              queries 64 … 69    keys 0 … 255 | 256 … 511 | 512 … 599    3 items, 1 merge

Long contexts are cut into ranges whatever else is in the batch, so that a step of few rows works on the whole device
and one long row does not keep the others waiting (FlashDecoding; Dao et al., 2023). Ranges begin at multiples of their
length from key 0. Queries are counted by slot: their place among the row's keys, which is their position but in a draft
tree.
"""

from dataclasses import dataclass

import numpy as np

from kernels.batch import RaggedBatch

__all__ = [
    "ITEM_FIELDS", "MERGE_FIELDS", "MERGE_LANES", "Launch", "Plan", "Policy", "TableRows", "check_trees", "plan_work",
    "tree_fields",
]  # fmt: skip

ITEM_FIELDS = 8
"""Of an item: where the row's block table begins, first token in the flat batch, number of queries, slot of the first
query, first key, end of the keys, partial result to write (-1: the result itself), first slot of the row's draft tree
(the context length for a chain)."""
MERGE_FIELDS = 8
"""Of a merge: first token, number of queries, first partial result, number of them, lane of the first, and padding, so
that every merge is aligned to 16 bytes."""
MERGE_LANES = 16
"""Partial results that a merge adds at once."""
SPLIT_UNIT = 128
"""Ranges are a multiple of so many keys, which is one of every tile."""
MOST_NODES = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """How work is cut.

    block_q: queries of an item at most. n_kv_heads: programs of an item. window: as in AttentionSpec. target: programs
    that fill the device. shortest: keys of a range at least. split_keys: length of every range, instead of one chosen
    from the batch. most_items, most_partials: None for any number; partial results beyond most_partials are written in
    a launch of their own where may_relaunch.
    """

    block_q: int
    n_kv_heads: int
    window: int | None
    target: int
    shortest: int
    split_keys: int | None = None
    most_items: int | None = None
    most_partials: int | None = None
    may_relaunch: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """Items and merges that are launched together; partial results are numbered from 0 in each launch."""

    items: slice
    merges: slice


@dataclass(frozen=True, slots=True)
class Plan:
    """items int32 [n, ITEM_FIELDS] and merges int32 [m, MERGE_FIELDS], by launch. n_partials: most of one launch.
    split_keys: keys of a range."""

    items: np.ndarray
    merges: np.ndarray
    launches: tuple[Launch, ...]
    n_partials: int
    split_keys: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Blocks of queries, each an array [blocks]: the row, its first token and slot, how many queries, the first slot of
    the row's tree, and the keys from low to end that some query of it sees."""

    row: np.ndarray
    first_token: np.ndarray
    count: np.ndarray
    first_slot: np.ndarray
    tree_start: np.ndarray
    low: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, batch: RaggedBatch, policy: Policy) -> "_Blocks":
        n, contexts = np.array(batch.query_lens, dtype=np.int64), np.array(batch.context_lens, dtype=np.int64)
        first_token, tree_start = np.cumsum(n) - n, contexts
        if batch.trees:
            tree_start = contexts - np.fromiter(map(len, batch.trees), np.int64, len(n))
        per_row = -(-n // policy.block_q)
        row = np.arange(len(n)).repeat(per_row)
        offset = (np.arange(len(row)) - (np.cumsum(per_row) - per_row)[row]) * policy.block_q
        count = np.minimum(n[row] - offset, policy.block_q)
        first_slot = (contexts - n)[row] + offset
        low = np.zeros_like(first_slot)
        if policy.window is not None:
            # The position of a node lies between the tree's start and its slot.
            low = np.maximum(np.minimum(first_slot, tree_start[row]) - policy.window + 1, 0)
        return cls(row, first_token[row] + offset, count, first_slot, tree_start[row], low, first_slot + count)

    def ranges(self, split: int) -> tuple[np.ndarray, np.ndarray]:
        """The first range of each block and how many it has, for ranges of `split` keys."""
        first = self.low // split
        return first, (self.end - 1) // split - first + 1

    def choose_split(self, policy: Policy) -> int:
        """The length of ranges that gives the device enough programs, and about the same work to each."""
        n_keys = self.end - self.low
        longest, total = int(n_keys.max()), int(n_keys.sum())
        split = max(policy.shortest, -(-total * policy.n_kv_heads // policy.target))
        if split >= longest:
            return _round_up(int(self.end.max()))
        split = _round_up(-(-longest // -(-longest // split)))
        while policy.most_items is not None and int(self.ranges(split)[1].sum()) > policy.most_items:
            split = _round_up(split + split // 2)
        return split


def plan_work(batch: RaggedBatch, table_stride: int, policy: Policy) -> Plan | None:
    """The work of a batch whose block tables lie table_stride apart; None where it does not fit the policy's bounds."""
    blocks = _Blocks.of(batch, policy)
    split = policy.split_keys or blocks.choose_split(policy)
    first_range, n_ranges = blocks.ranges(split)
    n_partial = np.where(n_ranges > 1, n_ranges, 0)
    partial_end = n_partial.cumsum()
    n_items, n_partials = int(n_ranges.sum()), int(partial_end[-1])
    if n_items > (policy.most_items or n_items):
        return None
    firsts = np.zeros(1, dtype=np.int64)  # the first block of each launch
    if n_partials > (policy.most_partials or n_partials):
        if not policy.may_relaunch:
            return None
        firsts = _cut(partial_end, max(policy.most_partials or 0, int(n_ranges.max())))
    launch = np.searchsorted(firsts, np.arange(len(n_ranges)), side="right") - 1
    base = (partial_end - n_partial)[firsts]
    first_partial = partial_end - n_partial - base[launch]

    items = np.empty((len(n_ranges), ITEM_FIELDS), dtype=np.int32)
    fields: tuple[np.ndarray | int, ...] = (
        blocks.row * table_stride, blocks.first_token, blocks.count, blocks.first_slot, first_range * split,
        blocks.end, -1, blocks.tree_start,
    )  # fmt: skip
    for field, values in enumerate(fields):
        items[:, field] = values
    merges = np.zeros((np.count_nonzero(n_partial), MERGE_FIELDS), dtype=np.int32)
    lanes = first_range % MERGE_LANES
    for field, values in enumerate((blocks.first_token, blocks.count, first_partial, n_partial, lanes)):
        merges[:, field] = values[n_partial > 0]
    block = np.arange(len(n_ranges))
    if n_partials:
        block = block.repeat(n_ranges)
        nth = np.arange(n_items) - (n_ranges.cumsum() - n_ranges)[block]
        items = items[block]
        items[:, 4] += nth * split
        np.minimum(items[:, 5], items[:, 4] + split, out=items[:, 5])
        items[:, 6] = np.where(n_partial[block] > 0, first_partial[block] + nth, -1)
    # The longest first, so that none begins when the device has nothing else left.
    n_keys = items[:, 5] - np.maximum(items[:, 4], blocks.low[block])
    order = np.lexsort((-n_keys, launch[block])) if len(firsts) > 1 else np.argsort(-n_keys, kind="stable")
    of_launch = np.arange(len(firsts))
    item_ends = np.searchsorted(launch[block], of_launch, side="right")
    merge_ends = np.searchsorted(launch[n_partial > 0], of_launch, side="right")
    launches = tuple(map(Launch, _slices(item_ends), _slices(merge_ends)))
    return Plan(items[order], merges, launches, int(np.diff(base, append=n_partials).max()), split)


def _round_up(n_keys: int) -> int:
    return -(-n_keys // SPLIT_UNIT) * SPLIT_UNIT


def _cut(ends: np.ndarray, most: int) -> np.ndarray:
    """Cut what is counted up in `ends` into consecutive parts of at most `most`: the first index of each."""
    firsts, before = [0], 0
    while (following := int(np.searchsorted(ends, before + most, side="right"))) < len(ends):
        firsts.append(following)
        before = int(ends[following - 1])
    return np.array(firsts)


def _slices(ends: np.ndarray) -> list[slice]:
    return [slice(int(end - n), int(end)) for n, end in zip(np.diff(ends, prepend=0), ends, strict=True)]


class TableRows:
    """The block tables of the rows of one batch after another, as numbers. A table seen in the batch before, the same
    tuple, is not converted again: most rows of a decode step have the pages that they had a step ago."""

    def __init__(self, n_rows: int, width: int) -> None:
        """Room for n_rows tables of width pages."""
        self._rows = np.zeros((n_rows, width), dtype=np.int32)
        self._spare = np.zeros_like(self._rows)
        self._tables: tuple[tuple[int, ...], ...] = ()  # held, so that their ids stay theirs
        self._row_of: dict[int, int] = {}
        self._filled = np.zeros(0, dtype=np.int64)

    def update(self, batch: RaggedBatch) -> np.ndarray:
        """The tables of a batch, a view int32 [rows, pages of the longest row]; negative where a page is gone, and
        anything beyond a row's pages. Raises ValueError for a table that is too short."""
        tables = batch.block_tables
        n_pages = -(-np.array(batch.context_lens) // batch.block_size)
        ids = list(map(id, tables))
        source = [self._row_of.get(key, -1) for key in ids]
        width = int(n_pages.max())
        filled = np.zeros(len(tables), dtype=np.int64)
        if self._tables:
            moved = np.array(source)
            filled = np.where(moved < 0, 0, self._filled[moved])
            if source != list(range(len(source))):
                self._spare[: len(source), :width] = self._rows[moved, :width]
                self._rows, self._spare = self._spare, self._rows
        for row in np.flatnonzero(filled < n_pages).tolist():
            n = int(n_pages[row])
            if len(tables[row]) < n:
                raise ValueError(
                    f"row {row} has {batch.context_lens[row]} keys and a block table of {len(tables[row])} pages: "
                    f"{batch.block_size} keys a page take {n}"
                )
            self._rows[row, :n] = np.fromiter(tables[row], np.int32, n)
            filled[row] = n
        # What was copied may be longer than this batch's widest row.
        self._tables, self._filled = tables, np.minimum(filled, width)
        self._row_of = dict(zip(ids, range(len(ids)), strict=True))
        return self._rows[: len(tables), :width]


def check_trees(batch: RaggedBatch) -> None:
    """Raise ValueError for a draft tree that no step can have."""
    if batch.trees and len(batch.trees) != len(batch.query_lens):
        raise ValueError(
            f"the batch has {len(batch.trees)} draft trees and {len(batch.query_lens)} rows: give every row one, or an "
            "empty tuple"
        )
    for row, (tree, n) in enumerate(zip(batch.trees, batch.query_lens, strict=False)):
        if len(tree) > MOST_NODES:
            raise ValueError(f"row {row} has a draft tree of {len(tree)} nodes: at most {MOST_NODES} fit a word")
        if len(tree) > n:
            raise ValueError(f"row {row} has a draft tree of {len(tree)} nodes and {n} queries: every node is a query")


def tree_fields(batch: RaggedBatch) -> tuple[np.ndarray, np.ndarray]:
    """By token of the flat batch, its position int32 [n] and its word int64 [n], 0 for what is no node of a tree."""
    n, contexts = np.array(batch.query_lens), np.array(batch.context_lens)
    ends = n.cumsum()
    positions = (np.arange(ends[-1]) + (contexts - ends).repeat(n)).astype(np.int32)
    words = np.zeros(ends[-1], dtype=np.uint64)
    if batch.trees:
        sizes = np.fromiter(map(len, batch.trees), np.int64, len(n))
        of_nodes = [word & (1 << 64) - 1 for tree in batch.trees for word in tree]
        node = np.arange(len(of_nodes)) + (ends - sizes.cumsum()).repeat(sizes)  # its token
        words[node] = np.array(of_nodes, dtype=np.uint64)
        positions[node] = (contexts - sizes).repeat(sizes) + np.bitwise_count(words[node]).astype(np.int64) - 1
    return positions, words.view(np.int64)
