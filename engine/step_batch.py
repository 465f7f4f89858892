"""A StepPlan as tensors: the flat batch that a model computes in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.plan import Row, StepPlan
from kernels import RaggedBatch


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Rows in the order of the flat batch, which is not the plan's: rows alike lie side by side, so attention can group
    them.

    tokens, positions: int64 [n]. slots, ragged: one of each for every KV group; slots is page * block_size + offset,
    int64 [n]. logits_from: int64 [sum n_logits], where in the flat batch each row of logits comes from, in the order of
    the plan.
    """

    rows: tuple[Row, ...]
    tokens: torch.Tensor
    positions: torch.Tensor
    slots: tuple[torch.Tensor, ...]
    logits_from: torch.Tensor
    ragged: tuple[RaggedBatch, ...]

    @classmethod
    def from_plan(cls, plan: StepPlan, block_size: int, n_groups: int, device: torch.device) -> "StepBatch":
        """Raises ValueError for a row without tokens, or whose block tables or n_logits do not fit its tokens."""
        for row in plan.rows:
            _check(row, block_size, n_groups)
        order = sorted(range(len(plan.rows)), key=lambda i: (plan.rows[i].n, plan.rows[i].start))
        rows = tuple(plan.rows[i] for i in order)
        lengths = np.array([row.n for row in rows])
        firsts = np.cumsum(lengths) - lengths  # where each row begins in the flat batch
        first_of = dict(zip(order, firsts.tolist(), strict=True))
        starts = np.array([row.start for row in rows])
        positions = np.arange(lengths.sum()) + np.repeat(starts - firsts, lengths)
        tables = list(zip(*(row.block_tables for row in rows), strict=True))  # [group][row]
        # The pages that rows write, side by side; `moved` leads from a page's index in its table to its place there.
        written = [(row.start // block_size, -(-(row.start + row.n) // block_size)) for row in rows]
        n_written = np.array([end - first for first, end in written])
        moved = np.cumsum(n_written) - n_written - starts // block_size
        page_at = positions // block_size + np.repeat(moved, lengths)
        offsets = positions % block_size
        query_lens, context_lens = tuple(lengths.tolist()), tuple((starts + lengths).tolist())
        logits_from = [
            first_of[i] + row.n - row.n_logits + offset
            for i, row in enumerate(plan.rows)
            for offset in range(row.n_logits)
        ]
        return cls(
            rows=rows,
            tokens=torch.tensor([token for row in rows for token in row.tokens], dtype=torch.int64, device=device),
            positions=torch.from_numpy(positions).to(device),
            slots=tuple(
                torch.from_numpy(_pages(of_group, written)[page_at] * block_size + offsets).to(device)
                for of_group in tables
            ),
            logits_from=torch.tensor(logits_from, dtype=torch.int64, device=device),
            ragged=tuple(RaggedBatch(query_lens, context_lens, of_group, block_size) for of_group in tables),
        )


def _pages(tables: Sequence[tuple[int, ...]], written: Sequence[tuple[int, int]]) -> np.ndarray:
    """The pages from first to end of each table, one table after another: int64 [pages]."""
    return np.array([page for table, (first, end) in zip(tables, written, strict=True) for page in table[first:end]])


def _check(row: Row, block_size: int, n_groups: int) -> None:
    if row.n < 1:
        raise ValueError(f"request {row.request_id}: a row needs at least one token")
    if not 0 <= row.n_logits <= row.n:
        raise ValueError(f"request {row.request_id}: {row.n_logits} rows of logits asked for {row.n} tokens")
    if len(row.block_tables) != n_groups:
        raise ValueError(
            f"request {row.request_id}: it has {len(row.block_tables)} block tables, the model has {n_groups} KV groups"
        )
    held = min(map(len, row.block_tables)) * block_size
    if held < row.start + row.n:
        raise ValueError(f"request {row.request_id}: its blocks hold {held} tokens, {row.start + row.n} are needed")
