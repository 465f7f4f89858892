"""The noise of noise.py inside Triton kernels, for whatever draws."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import triton
import triton.language as tl

from kernels.noise import GOLDEN, MIX_1, MIX_2, as_int64

__all__ = ["gumbel_noise", "uniform"]

GOLDEN_SIGNED = tl.constexpr(as_int64(GOLDEN))
MIX_1_SIGNED = tl.constexpr(as_int64(MIX_1))
MIX_2_SIGNED = tl.constexpr(as_int64(MIX_2))


@triton.jit
def uniform(key, index):
    """noise.uniform at int64 indices under one int64 key."""
    word = key + (index + 1) * GOLDEN_SIGNED
    word = (word ^ ((word >> 30) & 0x3FFFFFFFF)) * MIX_1_SIGNED
    word = (word ^ ((word >> 27) & 0x1FFFFFFFFF)) * MIX_2_SIGNED
    word = word ^ ((word >> 31) & 0x1FFFFFFFF)
    v = (((word >> 11) & 0x1FFFFFFFFFFFFF).to(tl.float32) + 0.5) * 1.1102230246251565e-16  # 2^-53
    return tl.minimum(v, 0.99999994)  # 1 - 2^-24


@triton.jit
def gumbel_noise(key, token):
    """noise.gumbel for int64 tokens under one int64 key."""
    v = uniform(key, token)
    # log1p(-v) by way of log alone (Kahan): the rounding of 1 - v cancels in the quotient.
    rest = 1.0 - v
    is_tiny = rest == 1.0
    exponential = tl.where(is_tiny, v, -tl.log(rest) * (v / tl.where(is_tiny, 1.0, 1.0 - rest)))
    return -tl.log(exponential)
