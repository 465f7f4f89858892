"""Inputs that the tests of the CPU forms and of the Triton kernels share."""

from collections.abc import Callable
from dataclasses import replace

import torch

from kernels import AttentionSpec, RaggedBatch
from kernels.kernel_set import AttentionStep
from tests.kernels.trees import path_to, words_of


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers that depend on the seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build_batch(rows: list[tuple[int, int]], block_size: int, n_pages: int) -> RaggedBatch:
    """Rows of (queries, context) whose pages are scattered; tables are a page longer than needed now and then."""
    order = iter(torch.randperm(n_pages, generator=torch.Generator().manual_seed(3)).tolist())
    rows = sorted(rows)
    tables = [tuple(next(order) for _ in range(-(-context // block_size) + context % 2)) for _, context in rows]
    return RaggedBatch(tuple(n for n, _ in rows), tuple(c for _, c in rows), tuple(tables), block_size)


def build_tree_batch(rows: list[tuple[int, int, tuple[int, ...]]], block_size: int, n_pages: int) -> RaggedBatch:
    """As build_batch, of rows as `trees.rows_with_trees` makes them."""
    rows = sorted(rows, key=lambda row: (row[1] + len(row[2]), row[0]))
    lengths = [(n + len(parents), before + n + len(parents)) for before, n, parents in rows]
    return replace(build_batch(lengths, block_size, n_pages), trees=tuple(words_of(parents) for _, _, parents in rows))


def attend_along(
    prepare: Callable[[RaggedBatch, AttentionSpec, torch.device], AttentionStep],
    before: int,
    n: int,
    parents: tuple[int, ...],
    node: int,
    block_size: int,
    window: int | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the queries up to a node of a tree attend to in a row of n tokens and the tree, and what they attend to
    where its path is a chain: the same keys and values, copied along the path into other pages."""
    n_kv_heads, head_dim, n_heads = 2, 24, 6
    root = before + n
    context = root + len(parents)
    n_pages = -(-context // block_size)
    pages = normal(n_pages, 2, n_kv_heads, block_size, head_dim).to(dtype)
    table = tuple(torch.randperm(n_pages, generator=torch.Generator().manual_seed(n)).tolist())
    spec, cpu = AttentionSpec(n_heads, n_kv_heads, head_dim, 0.3, window=window), torch.device("cpu")
    q = normal(context - before, n_heads, head_dim, seed=1).to(dtype)
    batch = RaggedBatch((len(q),), (context,), (table,), block_size, (words_of(parents),))
    path = path_to(parents, node)
    places = [*range(root), *(root + step for step in path)]
    chain = torch.zeros(-(-len(places) // 8), 2, n_kv_heads, 8, head_dim, dtype=dtype)
    for position, place in enumerate(places):
        page, offset = table[place // block_size], place % block_size
        chain[position // 8, :, :, position % 8] = pages[page, :, :, offset]
    queries = [*range(n), *(n + step for step in path)]
    alone = RaggedBatch((len(queries),), (len(places),), (tuple(range(len(chain))),), 8)
    return prepare(batch, spec, cpu)(q, pages)[queries], prepare(alone, spec, cpu)(q[queries], chain)


def behind_windows(batch: RaggedBatch, window: int | None) -> RaggedBatch:
    """The same batch once the pages that no query of a row sees are gone."""
    if window is None:
        return batch
    tables = []
    for n, context, table in zip(batch.query_lens, batch.context_lens, batch.block_tables, strict=True):
        n_gone = max(0, context - n - window + 1) // batch.block_size
        tables.append((-1,) * n_gone + table[n_gone:])
    return replace(batch, block_tables=tuple(tables))


def pack(bits: torch.Tensor) -> torch.Tensor:
    """bool [rows, 32 n] to packed int32 [rows, n]."""
    powers = 2 ** torch.arange(32, dtype=torch.int64)
    return (bits.view(len(bits), -1, 32) * powers).sum(-1).to(torch.int32)
