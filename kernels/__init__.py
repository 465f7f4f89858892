"""Tensors in, tensors out. Every kernel exists as plain torch (`reference`, its definition), and in a fast form per
device.

`kernels_for` picks: on a CPU the C kernels (`native`) where the machine can have them, else torch (`cpu`); the Triton
kernels on a GPU.
"""

import torch

from kernels import cpu_set
from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec, Kernels
from kernels.native import kernels as native

__all__ = ["AttentionSpec", "Kernels", "RaggedBatch", "kernels_for"]


def kernels_for(device: torch.device, dtype: torch.dtype = torch.float32, *, is_invariant: bool = False) -> Kernels:
    """The fast kernels of a device for a model of `dtype`. is_invariant: a row's results are the same bits whatever
    else is in the batch.

    Raises ValueError for a device that is neither a CPU nor a CUDA GPU.
    """
    if device.type == "cpu":
        kernels = cpu_set.build(is_invariant=is_invariant)
        library = native.library_for(dtype)
        return kernels if library is None else native.build(kernels, library)
    if device.type == "cuda":
        from kernels import gpu

        return gpu.build(is_invariant=is_invariant)
    raise ValueError(f"device is {device}: use a CPU or a CUDA GPU")
