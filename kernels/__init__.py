"""Tensors in, tensors out. Every kernel exists as plain torch (`reference`, its definition), and in a fast form per
device.

`kernels_for` picks: on a CPU the C kernels (`native`) where the machine can have them, else torch (`cpu`); the Triton
kernels on a GPU.
"""

import torch

from kernels import cpu, cpu_sampling, invariant, reference, reference_verify
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
            sample=cpu_sampling.sample,
            accept_coupled=reference_verify.accept_coupled,
            accept_ratio=reference_verify.accept_ratio,
            move_kv=reference_verify.move_kv,
            prepare_slots=cpu.write_index,
            prepare_attention=invariant.InvariantAttention if is_invariant else cpu.PagedAttention,
        )
    if device.type == "cuda":
        from kernels import gpu

        return gpu.build(is_invariant=is_invariant)
    raise ValueError(f"device is {device}: use a CPU or a CUDA GPU")
