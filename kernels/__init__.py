"""Tensors in, tensors out. Every kernel exists as plain torch (`reference`, its definition), and in a fast form per
device.

`kernels_for(device)` picks: `cpu` on a CPU, the Triton kernels on a GPU.
"""

import torch

from kernels import cpu, reference
from kernels.batch import RaggedBatch
from kernels.kernel_set import Kernels

__all__ = ["Kernels", "RaggedBatch", "kernels_for"]


def kernels_for(device: torch.device) -> Kernels:
    """The fast kernels of a device. Raises ValueError for a device that is neither a CPU nor a CUDA GPU."""
    if device.type == "cpu":
        return Kernels(
            rms_norm=cpu.rms_norm,
            add_rms_norm=cpu.add_rms_norm,
            silu_and_mul=reference.silu_and_mul,
            rope_and_cache=cpu.rope_and_cache,
            sample=cpu.sample,
            accept_chain=reference.accept_chain,
            prepare_slots=cpu.write_index,
            prepare_attention=cpu.PagedAttention,
        )
    if device.type == "cuda":
        from kernels import gpu

        return gpu.build()
    raise ValueError(f"device is {device}: use a CPU or a CUDA GPU")
