"""Picks the form that a checkpoint's linears are given."""

import functools
from collections.abc import Callable

import torch

from engine.config import Quantization
from engine.models.layers import Linear, Projection
from engine.quantization.int4 import Int4Linear
from engine.quantization.linear import NativeLinear, TiledLinear
from engine.quantization.w8a8 import W8A8Linear
from kernels.native.kernels import library_for

__all__ = ["converter"]


def converter(
    quantize: Quantization, dtype: torch.dtype, device: torch.device, *, is_invariant: bool
) -> Callable[[Linear], Projection]:
    """What each linear of a model of `dtype` becomes; those that keep their precision are not quantised.

    is_invariant: a row's result is to be the same bits whatever else is in the batch; quantised products always keep
    that promise. Raises ValueError where the machine has no such form, or the name is unknown.
    """
    if quantize not in ("none", "w8a8", "int4"):
        raise ValueError(f"quantize is {quantize!r}: use none, w8a8 or int4")
    if device.type != "cpu":
        if quantize != "none":
            raise ValueError(f"quantize is {quantize!r} and the device is {device}: use quantize=none on a GPU")
        return _keep
    library = library_for(dtype)
    is_invariant = is_invariant or quantize != "none"
    unquantised: Callable[[Linear], Projection] = TiledLinear if is_invariant else _keep
    if library is not None:
        unquantised = functools.partial(NativeLinear, library=library, is_invariant=is_invariant)
    if quantize == "none":
        return unquantised
    quantised: Callable[[Linear], Projection] = functools.partial(W8A8Linear.quantize, library=library)
    if quantize == "int4":
        if library is None:
            raise ValueError("quantize is 'int4', which only the C kernels compute, and this machine cannot have them")
        quantised = functools.partial(Int4Linear.quantize, library=library)
    return lambda linear: unquantised(linear) if linear.keeps_precision else quantised(linear)


def _keep(linear: Linear) -> Projection:
    return linear
