"""The C kernels as one set, for a decoder of one dtype."""

import functools

import torch

from kernels import cpu, reference
from kernels.batch import RaggedBatch
from kernels.kernel_set import Kernels
from kernels.native.build import find_library
from kernels.native.library import AttentionShape, NativeLibrary, StepRow

__all__ = ["NativeAttention", "build", "library_for"]

FEW_QUERIES = 16
"""Rows with more queries than this are attended to by torch, whose tiles over queries and keys are then faster."""


@functools.cache
def library_for(dtype: torch.dtype) -> NativeLibrary | None:
    """The C kernels for tensors of this dtype, or None where this machine has none."""
    path = find_library()
    return None if path is None or dtype not in (torch.float32, torch.bfloat16) else NativeLibrary(path, dtype)


def build(library: NativeLibrary, *, few_queries: int | None = FEW_QUERIES) -> Kernels:
    """The kernels of a CPU. few_queries: None computes all attention in C, to the same bits in any batch."""
    return Kernels(
        rms_norm=library.rms_norm,
        add_rms_norm=library.add_rms_norm,
        silu_and_mul=library.silu_and_mul,
        gelu_tanh_and_mul=reference.gelu_tanh_and_mul,
        rope_and_cache=library.rope_and_cache,
        sample=cpu.sample,
        accept_chain=reference.accept_chain,
        prepare_slots=_keep_slots,
        prepare_attention=functools.partial(NativeAttention, library, few_queries),
    )


def _keep_slots(slots: torch.Tensor, n_kv_heads: int, block_size: int) -> torch.Tensor:  # noqa: ARG001
    """The kernel finds the vectors of a slot by itself."""
    return slots


class NativeAttention:
    """Attention of one step, for all its layers. See reference.paged_attention.

    Rows of few queries are read in place, out of their pages. Rows of many go to torch, which gathers their pages once.
    """

    def __init__(
        self,
        library: NativeLibrary,
        few_queries: int | None,
        batch: RaggedBatch,
        n_kv_heads: int,
        scale: float,
        device: torch.device,
        softcap: float | None = None,
    ) -> None:
        self._library, self._n_kv_heads, self._scale, self._softcap = library, n_kv_heads, scale, softcap
        self._block_size = batch.block_size
        # StepBatch sorts rows by their number of queries, so those with few come first.
        n_few = sum(few_queries is None or n <= few_queries for n in batch.query_lens)
        self._n_tokens = sum(batch.query_lens[:n_few])
        tables = [table for row in range(n_few) for table in batch.block_tables[row][: batch.n_pages(row)]]
        self._tables = torch.tensor(tables, dtype=torch.int32)
        self._rows, address, first = (StepRow * n_few)(), self._tables.data_ptr(), 0
        for row in range(n_few):
            n, context = batch.query_lens[row], batch.context_lens[row]
            self._rows[row] = StepRow(first, n, context, address)
            first, address = first + n, address + 4 * batch.n_pages(row)
        many = RaggedBatch(
            batch.query_lens[n_few:], batch.context_lens[n_few:], batch.block_tables[n_few:], batch.block_size
        )
        self._many = cpu.PagedAttention(many, n_kv_heads, scale, device, softcap) if many.query_lens else None

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, window: int | None) -> torch.Tensor:
        """q [n, heads, d], pages of one layer, to [n, heads, d]."""
        if self._many is None:
            return self._few(q, pages, window)
        many = self._many(q[self._n_tokens :], pages, window)
        return torch.cat((self._few(q[: self._n_tokens], pages, window), many)) if self._n_tokens else many

    def _few(self, q: torch.Tensor, pages: torch.Tensor, window: int | None) -> torch.Tensor:
        shape = AttentionShape(
            q.shape[1], self._n_kv_heads, q.shape[2], self._block_size, window or 0, self._scale, self._softcap or 0.0
        )
        return self._library.paged_attention(q, pages, self._rows, shape)
