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
        first_of = dict(zip(order, np.cumsum([0, *(row.n for row in rows[:-1])]).tolist(), strict=True))
        positions = np.concatenate([np.arange(row.start, row.start + row.n) for row in rows])
        tables = list(zip(*(row.block_tables for row in rows), strict=True))  # [group][row]
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
                torch.from_numpy(_pages(rows, of_group, block_size) * block_size + positions % block_size).to(device)
                for of_group in tables
            ),
            logits_from=torch.tensor(logits_from, dtype=torch.int64, device=device),
            ragged=tuple(
                RaggedBatch(
                    query_lens=tuple(row.n for row in rows),
                    context_lens=tuple(row.start + row.n for row in rows),
                    block_tables=of_group,
                    block_size=block_size,
                )
                for of_group in tables
            ),
        )


def _pages(rows: Sequence[Row], tables: Sequence[tuple[int, ...]], block_size: int) -> np.ndarray:
    """The page of every token of the flat batch: int64 [n]."""
    pages = []
    for row, table in zip(rows, tables, strict=True):
        first, end = row.start // block_size, -(-(row.start + row.n) // block_size)
        at = np.arange(row.start - first * block_size, row.start + row.n - first * block_size)
        pages.append(np.asarray(table[first:end])[at // block_size])
    return np.concatenate(pages)


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
