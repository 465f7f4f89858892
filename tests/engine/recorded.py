"""A platform that records steps as a GPU does, on the CPU and in plain torch: padding is poisoned, so that whatever
reads it shows."""

from dataclasses import replace

import torch

from engine.platform import Platform
from engine.recorder import Repeater
from kernels import AttentionSpec, Kernels, RaggedBatch, cpu, kernels_for, reference

__all__ = ["POISON", "TorchBucket", "recorded_platform"]

CPU = torch.device("cpu")
POISON = float("nan")


class TorchBucket:
    """kernel_set.BucketAttention by cpu.PagedAttention."""

    def __init__(
        self,
        n_rows: int,
        n_queries: int,
        table_width: int,
        block_size: int,
        spec: AttentionSpec,
        _: torch.device,
        *,
        has_trees: bool = False,
    ) -> None:
        self._has_trees = has_trees
        self._bounds = (n_rows, n_queries, table_width)
        self._spec, self._block_size = spec, block_size
        self._batch: RaggedBatch | None = None

    def refill(self, batch: RaggedBatch) -> bool:
        """See kernel_set.BucketAttention."""
        n_rows, n_queries, width = self._bounds
        assert batch.block_size == self._block_size
        if len(batch.query_lens) > n_rows or max(map(batch.n_pages, range(len(batch.query_lens)))) > width:
            return False
        if any(batch.trees) and not self._has_trees:
            return False
        assert set(batch.query_lens) == {n_queries}
        self._batch = batch
        return True

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """Rows beyond the batch are poison."""
        out = torch.full_like(q, POISON)
        if self._batch is not None:
            n = self._batch.n_tokens
            out[:n] = cpu.PagedAttention(self._batch, self._spec, CPU)(q[:n], pages, sinks)
        return out


def kernels(dtype: torch.dtype, is_invariant: bool) -> Kernels:
    """Those of the CPU, as far as they take tensors that stay where they are."""
    return replace(
        kernels_for(CPU, dtype, is_invariant=is_invariant),
        rope_and_cache=reference.rope_and_cache,
        prepare_slots=lambda slots, _n_kv_heads, _block_size: slots,
        prepare_attention=cpu.PagedAttention,
        prepare_bucket=TorchBucket,
        is_native=False,
    )


def recorded_platform() -> Platform:
    """For load_engine and ModelRunner."""
    return Platform(CPU, kernels, Repeater())
