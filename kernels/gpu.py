"""The Triton kernels as one set. Imported only where there is a GPU: importing triton takes half a second."""

import functools

from kernels import activation, attention, cache_write, embedding, norm, page_sums, reference, sampling, verify
from kernels.kernel_set import Kernels, keep_slots


def build(*, is_invariant: bool = False) -> Kernels:
    """The kernels of a CUDA device. is_invariant: attention is cut in the same places whatever else is in the batch;
    the others give a row the same bits in any batch as they are."""
    return Kernels(
        embed=embedding.embed,
        rotary_tables=embedding.rotary_tables,
        rms_norm=norm.rms_norm,
        add_rms_norm=norm.add_rms_norm,
        silu_and_mul=activation.silu_and_mul,
        gelu_tanh_and_mul=activation.gelu_tanh_and_mul,
        rope_and_cache=cache_write.rope_and_cache,
        add_page_sums=page_sums.add_page_sums,
        carry_page_sums=page_sums.carry_page_sums,
        sample=sampling.sample,
        distribution=reference.distribution,
        accept_coupled=verify.accept_coupled,
        accept_ratio=verify.accept_ratio,
        move_kv=verify.move_kv,
        prepare_slots=keep_slots,
        prepare_attention=functools.partial(attention.PagedAttention, is_invariant=is_invariant),
        prepare_bucket=functools.partial(attention.PagedAttention.for_bucket, is_invariant=is_invariant),
        reads_quantized=True,
    )
