"""The kernels of a CPU in torch and numpy as one set."""

import functools

from kernels import cpu, cpu_sampling, invariant, reference, reference_verify
from kernels.kernel_set import Kernels

__all__ = ["build"]


def build(*, is_invariant: bool = False) -> Kernels:
    """is_invariant: attention computes every query alone, so that its bits do not depend on the batch."""
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
        distribution=functools.partial(reference.distribution, find_cut=cpu_sampling.cut),
        accept_coupled=reference_verify.accept_coupled,
        accept_ratio=reference_verify.accept_ratio,
        move_kv=cpu.move_kv,
        prepare_slots=cpu.write_index,
        prepare_attention=invariant.InvariantAttention if is_invariant else cpu.PagedAttention,
    )
