"""Picks the form that a checkpoint's linears are given."""

import functools
from collections.abc import Callable

import torch

from engine.config import Quantization
from engine.models.layers import Linear, Projection
from engine.quantization.linear import NativeLinear, TiledLinear
from engine.quantization.w8a8 import W8A8Linear
from kernels.native.kernels import library_for

__all__ = ["converter"]


def converter(
    quantize: Quantization, dtype: torch.dtype, device: torch.device, *, is_invariant: bool
) -> Callable[[Linear], Projection]:
    """What each linear of a model of `dtype` becomes.

    is_invariant: a row's result is to be the same bits whatever else is in the batch; w8a8 always keeps that promise.
    A linear that keeps its precision (`Linear.keeps_precision`) is not quantised.
    Raises ValueError where the device has no such form.
    """
    if device.type != "cpu":
        if quantize != "none":
            raise ValueError(f"quantize is {quantize!r} and the device is {device}: use quantize=none on a GPU")
        return _keep
    library = library_for(dtype)
    is_invariant = is_invariant or quantize == "w8a8"
    unquantised: Callable[[Linear], Projection] = TiledLinear if is_invariant else _keep
    if library is not None:
        unquantised = functools.partial(NativeLinear, library=library, is_invariant=is_invariant)
    if quantize != "w8a8":
        return unquantised
    return lambda linear: unquantised(linear) if linear.keeps_precision else W8A8Linear.quantize(linear, library)


def _keep(linear: Linear) -> Projection:
    return linear
