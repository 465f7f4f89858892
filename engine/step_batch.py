"""A StepPlan as arrays: the flat batch that a model computes in one forward pass.

A row that verifies a draft tree lies in the cache as a chain does, but its nodes say and see what the tree makes of
them:

    tail        a  b  c  d       parents  -1  0  -1  2         root - a - b
    place       6  7  8  9       one after another                  \\ c - d
    position    6  7  6  7       their depth behind the root, which is the token before the tail, at 5
    words       root, then each node with its ancestors: bit 0 is the root, bit 1 is a, …
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.plan import Row, StepPlan
from engine.speculation.proposer import MAX_NODES
from kernels import RaggedBatch
from kernels.staging import Staging

__all__ = ["StepBatch", "StepTensors", "n_tail", "tree_words"]


@dataclass(frozen=True, slots=True)
class StepTensors:
    """The arrays of a StepBatch on the device that computes it, all int64."""

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: tuple[torch.Tensor, ...]
    logits_from: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepBatch:
    """rows: in the order of the flat batch. tokens, positions: int64 [n]. slots, ragged: one of each for every KV
    group; slots is page * block_size + offset, int64 [n]. logits_from: int64 [sum n_logits], where in the flat batch
    each row of logits comes from, in the order of the plan.
    """

    rows: tuple[Row, ...]
    tokens: np.ndarray
    positions: np.ndarray
    slots: tuple[np.ndarray, ...]
    logits_from: np.ndarray
    ragged: tuple[RaggedBatch, ...]

    @classmethod
    def from_plan(cls, plan: StepPlan, block_size: int, n_groups: int, *, is_sorted: bool = True) -> "StepBatch":
        """is_sorted: rows alike lie side by side in the flat batch, so that attention can group them; else rows lie in
        the order of the plan.

        Raises ValueError for a row without tokens, or whose block tables, n_logits or parents do not fit its tokens.
        """
        for row in plan.rows:
            _check(row, block_size, n_groups)
        if len(plan.rows) == 1 and not plan.rows[0].parents:
            return cls._of_one(plan.rows[0], block_size)
        order = list(range(len(plan.rows)))
        if is_sorted:
            order.sort(key=lambda i: (plan.rows[i].n, plan.rows[i].start))
        rows = tuple(plan.rows[i] for i in order)
        lengths = np.array([row.n for row in rows])
        firsts = np.cumsum(lengths) - lengths  # where each row begins in the flat batch
        first_of = dict(zip(order, firsts.tolist(), strict=True))
        starts = np.array([row.start for row in rows])
        places = np.arange(lengths.sum()) + np.repeat(starts - firsts, lengths)
        tables = list(zip(*(row.block_tables for row in rows), strict=True))  # [group][row]
        # The pages that rows write, side by side; `moved` leads from a page's index in its table to its place there.
        written = [(row.start // block_size, -(-(row.start + row.n) // block_size)) for row in rows]
        n_written = np.array([end - first for first, end in written])
        moved = np.cumsum(n_written) - n_written - starts // block_size
        page_at = places // block_size + np.repeat(moved, lengths)
        offsets = places % block_size
        query_lens, context_lens = tuple(lengths.tolist()), tuple((starts + lengths).tolist())
        logits_from = [
            first_of[i] + row.n - row.n_logits + offset
            for i, row in enumerate(plan.rows)
            for offset in range(row.n_logits)
        ]
        positions, trees = places, tuple[tuple[int, ...], ...]()
        if any(row.parents for row in rows):
            positions, trees = places.copy(), tuple(tree_words(row.parents) for row in rows)
            for first, row, words in zip(firsts.tolist(), rows, trees, strict=True):
                end, root = first + row.n, row.start + row.n - len(words)  # whose depth is 0
                positions[end - len(words) : end] = [root + word.bit_count() - 1 for word in words]
            trees = trees if any(trees) else ()
        return cls(
            rows=rows,
            tokens=np.array([token for row in rows for token in row.tokens], dtype=np.int64),
            positions=positions,
            slots=tuple(_pages(of_group, written)[page_at] * block_size + offsets for of_group in tables),
            logits_from=np.array(logits_from, dtype=np.int64),
            ragged=tuple(RaggedBatch(query_lens, context_lens, of_group, block_size, trees) for of_group in tables),
        )

    @classmethod
    def _of_one(cls, row: Row, block_size: int) -> "StepBatch":
        """The same of a single row that is no tree: a small model's step feels every array that is made."""
        end = row.start + row.n
        places = np.arange(row.start, end)
        first, last = row.start // block_size, (end - 1) // block_size
        if first == last:
            shifts = [(table[first] - first) * block_size for table in row.block_tables]
            slots = tuple(places + shift for shift in shifts)
        else:
            page_at, offsets = places // block_size - first, places % block_size
            slots = tuple(
                np.array(table[first : last + 1])[page_at] * block_size + offsets for table in row.block_tables
            )
        return cls(
            rows=(row,),
            tokens=np.array(row.tokens, dtype=np.int64),
            positions=places,
            slots=slots,
            logits_from=np.arange(row.n - row.n_logits, row.n),
            ragged=tuple(RaggedBatch((row.n,), (end,), (table,), block_size) for table in row.block_tables),
        )

    def to(self, device: torch.device) -> StepTensors:
        """The arrays on a device; on a GPU, work queued from now on sees them."""
        if device.type == "cpu":
            tokens, positions, logits_from = map(torch.from_numpy, (self.tokens, self.positions, self.logits_from))
            return StepTensors(tokens, positions, tuple(map(torch.from_numpy, self.slots)), logits_from)
        arrays = {"tokens": self.tokens, "positions": self.positions, "logits_from": self.logits_from}
        arrays |= {f"slots {group}": slots for group, slots in enumerate(self.slots)}
        staging = Staging({name: (array.shape, torch.int64) for name, array in arrays.items()}, device, 1)
        for name, target in staging.arrays().items():
            target[:] = arrays[name]
        staging.send()
        tensors = staging.tensors
        slots = tuple(tensors[f"slots {group}"] for group in range(len(self.slots)))
        return StepTensors(tensors["tokens"], tensors["positions"], slots, tensors["logits_from"])


def n_tail(row: Row) -> int:
    """How many of a row's tokens are its tail, to be verified."""
    return max(0, row.n_logits - 1)


def tree_words(parents: Sequence[int]) -> tuple[int, ...]:
    """The words of a tail in a RaggedBatch: of its root, the token before it, and of each node. parents: see Row. None
    for a chain, whether it has parents or not."""
    if all(parent == node - 1 for node, parent in enumerate(parents)):
        return ()
    words = [1]
    for node, parent in enumerate(parents):
        words.append(words[parent + 1] | 2 << node)
    return tuple(words)


def _pages(tables: Sequence[tuple[int, ...]], written: Sequence[tuple[int, int]]) -> np.ndarray:
    """The pages from first to end of each table, one table after another: int64 [pages]."""
    return np.array([page for table, (first, end) in zip(tables, written, strict=True) for page in table[first:end]])


def _check(row: Row, block_size: int, n_groups: int) -> None:
    if row.n < 1:
        raise ValueError(f"request {row.request_id}: a row needs at least one token")
    if not 0 <= row.n_logits <= row.n:
        raise ValueError(f"request {row.request_id}: {row.n_logits} rows of logits asked for {row.n} tokens")
    if row.parents:
        _check_tree(row)
    if len(row.block_tables) != n_groups:
        raise ValueError(
            f"request {row.request_id}: it has {len(row.block_tables)} block tables, the model has {n_groups} KV groups"
        )
    held = min(map(len, row.block_tables)) * block_size
    if held < row.start + row.n:
        raise ValueError(f"request {row.request_id}: its blocks hold {held} tokens, {row.start + row.n} are needed")


def _check_tree(row: Row) -> None:
    n = len(row.parents)
    if n != n_tail(row):
        raise ValueError(
            f"request {row.request_id}: it has {n} parents and a tail of {n_tail(row)}: give each node one"
        )
    if n > MAX_NODES:
        raise ValueError(f"request {row.request_id}: its tail is a tree of {n} nodes: use at most {MAX_NODES}")
    for node, parent in enumerate(row.parents):
        if not -1 <= parent < node:
            raise ValueError(
                f"request {row.request_id}: the parent of node {node} is {parent}: use a node before it, or -1"
            )
