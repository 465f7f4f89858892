"""The Triton kernels as one set. Imported only where there is a GPU: importing triton takes half a second."""

import torch

from kernels import activation, attention, cache_write, norm, reference, sampling, verify
from kernels.kernel_set import Kernels


def build() -> Kernels:
    """The kernels of a CUDA device."""
    return Kernels(
        embed=reference.embed,
        rotary_tables=reference.rotary_tables,
        rms_norm=norm.rms_norm,
        add_rms_norm=norm.add_rms_norm,
        silu_and_mul=activation.silu_and_mul,
        gelu_tanh_and_mul=activation.gelu_tanh_and_mul,
        rope_and_cache=cache_write.rope_and_cache,
        add_page_sums=reference.add_page_sums,
        carry_page_sums=reference.carry_page_sums,
        sample=sampling.sample,
        accept_chain=verify.accept_chain,
        prepare_slots=_keep_slots,
        prepare_attention=attention.PagedAttention,
    )


def _keep_slots(slots: torch.Tensor, n_kv_heads: int, block_size: int) -> torch.Tensor:  # noqa: ARG001
    """The kernel finds the vectors of a slot by itself."""
    return slots
