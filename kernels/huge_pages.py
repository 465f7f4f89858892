"""Memory for weights in pages of 2 MiB: a step reads all of them once, and with pages of 4 KiB a fifth of that time
goes into looking up addresses."""

import ctypes
import sys
from collections.abc import Sequence

import torch

__all__ = ["empty"]

HUGE_PAGE = 2 * 2**20
MADV_HUGEPAGE = 14
"""Linux, sys/mman.h."""


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised contiguous CPU tensor, in huge pages where it fills one and the kernel hands them out on request
    (/sys/kernel/mm/transparent_hugepage/enabled: madvise or always); in ordinary memory otherwise."""
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    if n_bytes < HUGE_PAGE or sys.platform != "linux":
        return torch.empty(tuple(shape), dtype=dtype)
    # What lies before the first page boundary is never touched, and so takes no memory; neither does what would follow
    # the tensor in its last page, since that one stays small.
    spare = torch.empty(n_bytes + HUGE_PAGE, dtype=torch.uint8)
    first = -spare.data_ptr() % HUGE_PAGE
    advised = n_bytes // HUGE_PAGE * HUGE_PAGE
    # Advice only: where it is not taken, the memory is the same in small pages.
    ctypes.CDLL(None).madvise(ctypes.c_void_p(spare.data_ptr() + first), ctypes.c_size_t(advised), MADV_HUGEPAGE)
    return spare[first : first + n_bytes].view(dtype).view(tuple(shape))
