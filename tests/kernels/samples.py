"""Inputs that the tests of the CPU forms and of the Triton kernels share."""

import torch

from kernels import RaggedBatch


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers that depend on the seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_batch(rows: list[tuple[int, int]], block_size: int, n_pages: int) -> RaggedBatch:
    """Rows of (queries, context) whose pages are scattered; tables are a page longer than needed now and then."""
    order = iter(torch.randperm(n_pages, generator=torch.Generator().manual_seed(3)).tolist())
    rows = sorted(rows)
    tables = [tuple(next(order) for _ in range(-(-context // block_size) + context % 2)) for _, context in rows]
    return RaggedBatch(tuple(n for n, _ in rows), tuple(c for _, c in rows), tuple(tables), block_size)


def behind_windows(batch: RaggedBatch, window: int | None) -> RaggedBatch:
    """The same batch once the pages that no query of a row sees are gone."""
    if window is None:
        return batch
    tables = []
    for n, context, table in zip(batch.query_lens, batch.context_lens, batch.block_tables, strict=True):
        n_gone = max(0, context - n - window + 1) // batch.block_size
        tables.append((-1,) * n_gone + table[n_gone:])
    return RaggedBatch(batch.query_lens, batch.context_lens, tuple(tables), batch.block_size)


def pack(bits: torch.Tensor) -> torch.Tensor:
    """bool [rows, 32 n] to packed int32 [rows, n]."""
    powers = 2 ** torch.arange(32, dtype=torch.int64)
    return (bits.view(len(bits), -1, 32) * powers).sum(-1).to(torch.int32)
