"""Picks the form that a checkpoint's linears are given."""

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
    Raises ValueError where the device has no such form.
    """
    if device.type != "cpu":
        if quantize != "none":
            raise ValueError(f"quantize is {quantize!r} and the device is {device}: use quantize=none on a GPU")
        return _keep
    library = library_for(dtype)
    if quantize == "w8a8":
        return lambda linear: W8A8Linear.quantize(linear, library)
    if library is not None:
        return lambda linear: NativeLinear(linear, library, is_invariant=is_invariant)
    return TiledLinear if is_invariant else _keep


def _keep(linear: Linear) -> Projection:
    return linear
