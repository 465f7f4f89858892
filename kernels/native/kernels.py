"""The C kernels as one set, for a decoder of one dtype."""

import functools
from dataclasses import replace

import torch

from kernels import cpu, cpu_sampling
from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec, Kernels, keep_slots
from kernels.native.build import find_library
from kernels.native.library import NativeLibrary
from kernels.native.structures import AttentionShape, StepRow

__all__ = ["NativeAttention", "build", "library_for"]


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
        """Raises ValueError for trees, ALiBi and a device that is no CPU."""
        cpu.check_plain(batch, spec, device)
        self._library, self._spec, self._block_size = library, spec, batch.block_size
        n_rows = len(batch.query_lens)
        tables = [page for row in range(n_rows) for page in batch.block_tables[row][: batch.n_pages(row)]]
        self._tables = torch.tensor(tables, dtype=torch.int32)
        self.rows, address, first = (StepRow * n_rows)(), self._tables.data_ptr(), 0
        for row, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
            self.rows[row] = StepRow(first, n, context, address)
            first, address = first + n, address + self._tables.itemsize * batch.n_pages(row)

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
