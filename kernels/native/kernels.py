"""The C kernels as one set, for a decoder of one dtype."""

import functools
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch

from kernels import cpu, cpu_sampling
from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec, Kernels, keep_slots
from kernels.native.build import find_library
from kernels.native.library import NativeLibrary
from kernels.native.structures import AttentionShape, StepRow

__all__ = ["NativeAttention", "build", "library_for"]

NO_BRANCH = 2**31 - 1
"""No position is there."""


@functools.cache
def library_for(dtype: torch.dtype) -> NativeLibrary | None:
    """The C kernels for tensors of this dtype, or None where this machine has none."""
    path = find_library()
    return None if path is None or dtype not in (torch.float32, torch.bfloat16) else NativeLibrary(path, dtype)


def build(portable: Kernels, library: NativeLibrary) -> Kernels:
    """The kernels of a CPU, those that there are in C instead of the portable ones. All of them give a row the same
    bits in any batch."""
    return replace(
        portable,
        rms_norm=library.rms_norm,
        add_rms_norm=library.add_rms_norm,
        silu_and_mul=library.silu_and_mul,
        gelu_tanh_and_mul=library.gelu_tanh_and_mul,
        rope_and_cache=library.rope_and_cache,
        sample=functools.partial(cpu_sampling.sample, mask_logits=library.mask_logits),
        prepare_slots=keep_slots,
        prepare_attention=functools.partial(NativeAttention, library),
        is_native=True,
    )


class NativeAttention:
    """Attention of one step, for all its layers, over keys and values that stay in their pages. See
    reference.paged_attention. rows: what the C kernels read of the batch."""

    def __init__(
        self,
        library: NativeLibrary,
        batch: RaggedBatch,
        spec: AttentionSpec,
        device: torch.device,
    ) -> None:
        """Raises ValueError for ALiBi and a device that is no CPU."""
        cpu.check_plain(batch, spec, device)
        self._library, self._spec, self._block_size = library, spec, batch.block_size
        n_rows = len(batch.query_lens)
        tables = [page for row in range(n_rows) for page in batch.block_tables[row][: batch.n_pages(row)]]
        runs = _branching_runs(batch) if batch.trees else []
        n_pages, n_branching = len(tables), [0] * n_rows
        for run in runs:
            tables += run.branch
            n_branching[run.row] += run.n
        # The tables, and behind them the branches: what the rows point to.
        self._tables = torch.tensor(tables, dtype=torch.int32)
        size, address, addresses = self._tables.itemsize, self._tables.data_ptr(), list[int]()
        branch_address = address + size * n_pages
        self.rows, first = (StepRow * (n_rows + len(runs)))(), 0
        for row, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
            elsewhere = n_branching[row]
            self.rows[row] = StepRow(first, n - elsewhere, context - elsewhere, NO_BRANCH, address)
            addresses.append(address)
            first, address = first + n, address + size * batch.n_pages(row)
        for index, run in enumerate(runs, n_rows):
            context = run.root + len(run.branch)
            self.rows[index] = StepRow(run.first_token, run.n, context, run.root, addresses[run.row], branch_address)
            branch_address += size * len(run.branch)

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """q [n, heads, d], pages of one layer, to [n, heads, d]. Raises ValueError for sinks."""
        cpu.check_sinks(sinks)
        spec = self._spec
        shape = AttentionShape(
            spec.n_heads,
            spec.n_kv_heads,
            spec.head_dim,
            self._block_size,
            spec.window or 0,
            spec.scale,
            spec.softcap or 0.0,
        )
        return self._library.paged_attention(q, pages, self.rows, shape)


class _Run(NamedTuple):
    """n nodes of a row's draft tree that follow one another, each the parent of the next. first_token: in the flat
    batch; root: its place, and position; branch: the places of the last one's ancestors and itself, from the root's
    on."""

    row: int
    n: int
    first_token: int
    root: int
    branch: list[int]


def _branching_runs(batch: RaggedBatch) -> list[_Run]:
    """The nodes of trees but those that begin a tree as they would a chain, which are queries of their rows like any
    others."""
    runs, end = list[_Run](), 0
    for row, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
        end += n
        branches = batch.branches(row)
        root, first_token = context - len(branches), end - len(branches)
        starts = [node for node, branch in enumerate(branches) if node and branch[:-1] != branches[node - 1]]
        for start, stop in pairwise([*starts, len(branches)]):
            branch = [root + node for node in branches[stop - 1]]
            runs.append(_Run(row, stop - start, first_token + start, root, branch))
    return runs
