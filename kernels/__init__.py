"""Tensors in, tensors out. Every kernel exists as plain torch (`reference`, its definition), and in a fast form per
device.

`kernels_for` picks: on a CPU the C kernels (`native`) where the machine can have them, else torch (`cpu`); the Triton
kernels on a GPU.
"""

import torch

from kernels import cpu, invariant, reference
from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec, Kernels
from kernels.native import kernels as native

__all__ = ["AttentionSpec", "Kernels", "RaggedBatch", "kernels_for"]


def kernels_for(device: torch.device, dtype: torch.dtype = torch.float32, *, is_invariant: bool = False) -> Kernels:
    """The fast kernels of a device for a model of `dtype`. is_invariant: a row's results are the same bits whatever
    else is in the batch (on a CPU; the Triton kernels have no such form yet).

    Raises ValueError for a device that is neither a CPU nor a CUDA GPU, and for is_invariant on a GPU.
    """
    if device.type == "cpu":
        library = native.library_for(dtype)
        if library is not None:
            return native.build(library)
        return Kernels(
            embed=reference.embed,
            rotary_tables=reference.rotary_tables,
            rms_norm=cpu.rms_norm,
            add_rms_norm=cpu.add_rms_norm,
            silu_and_mul=reference.silu_and_mul,
            gelu_tanh_and_mul=reference.gelu_tanh_and_mul,
            rope_and_cache=cpu.rope_and_cache,
            add_page_sums=cpu.add_page_sums,
            carry_page_sums=reference.carry_page_sums,
            sample=cpu.sample,
            accept_chain=reference.accept_chain,
            prepare_slots=cpu.write_index,
            prepare_attention=invariant.InvariantAttention if is_invariant else cpu.PagedAttention,
        )
    if is_invariant:
        raise ValueError(f"invariant is set and the device is {device}: use device=cpu, or leave it out")
    if device.type == "cuda":
        from kernels import gpu

        return gpu.build()
    raise ValueError(f"device is {device}: use a CPU or a CUDA GPU")
