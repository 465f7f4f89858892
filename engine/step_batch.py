"""A StepPlan as tensors: the flat batch that a model computes in one forward pass."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.plan import Row, StepPlan
from kernels import RaggedBatch


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Rows in the order of the flat batch, which is not the plan's: rows alike lie side by side, so attention can group
    them.

    tokens, positions, slots: int64 [n]; slots is page * block_size + offset. logits_from: int64 [sum n_logits], where
    in the flat batch each row of logits comes from, in the order of the plan.
    """

    rows: tuple[Row, ...]
    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    logits_from: torch.Tensor
    ragged: RaggedBatch

    @classmethod
    def from_plan(cls, plan: StepPlan, block_size: int, device: torch.device) -> "StepBatch":
        """Raises ValueError for a row without tokens, or whose block table or n_logits does not fit its tokens."""
        for row in plan.rows:
            _check(row, block_size)
        order = sorted(range(len(plan.rows)), key=lambda i: (plan.rows[i].n, plan.rows[i].start))
        rows = tuple(plan.rows[i] for i in order)
        first_of = dict(zip(order, np.cumsum([0, *(row.n for row in rows[:-1])]).tolist(), strict=True))
        positions = np.concatenate([np.arange(row.start, row.start + row.n) for row in rows])
        pages = np.concatenate(
            [np.asarray(row.block_table)[np.arange(row.start, row.start + row.n) // block_size] for row in rows]
        )
        logits_from = [
            first_of[i] + row.n - row.n_logits + offset
            for i, row in enumerate(plan.rows)
            for offset in range(row.n_logits)
        ]
        return cls(
            rows=rows,
            tokens=torch.tensor([token for row in rows for token in row.tokens], dtype=torch.int64, device=device),
            positions=torch.from_numpy(positions).to(device),
            slots=torch.from_numpy(pages * block_size + positions % block_size).to(device),
            logits_from=torch.tensor(logits_from, dtype=torch.int64, device=device),
            ragged=RaggedBatch(
                query_lens=tuple(row.n for row in rows),
                context_lens=tuple(row.start + row.n for row in rows),
                block_tables=tuple(row.block_table for row in rows),
                block_size=block_size,
            ),
        )


def _check(row: Row, block_size: int) -> None:
    if row.n < 1:
        raise ValueError(f"request {row.request_id}: a row needs at least one token")
    if not 0 <= row.n_logits <= row.n:
        raise ValueError(f"request {row.request_id}: {row.n_logits} rows of logits asked for {row.n} tokens")
    if len(row.block_table) * block_size < row.start + row.n:
        held = len(row.block_table) * block_size
        raise ValueError(f"request {row.request_id}: its blocks hold {held} tokens, {row.start + row.n} are needed")
