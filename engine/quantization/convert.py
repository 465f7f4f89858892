"""Picks the form that a checkpoint's linears are given."""

import functools
from collections.abc import Callable
from typing import get_args

import torch

from engine.config import Quantization
from engine.models.layers import Linear, Projection
from engine.quantization.int4 import Int4Linear
from engine.quantization.linear import GPU_TILE, NativeLinear, TiledLinear
from engine.quantization.w8a8 import W8A8Linear
from engine.quantization.weight_only import Weight4Linear, Weight8Linear
from kernels.native.kernels import library_for

__all__ = ["converter"]

Form = Callable[[Linear], Projection]

FP8_CAPABILITY = (8, 9)
"""From this compute capability on a GPU has float8_e4m3fn (CUDA C programming guide)."""


def converter(quantize: Quantization, dtype: torch.dtype, device: torch.device, *, is_invariant: bool) -> Form:
    """What each linear of a model of `dtype` becomes; those that keep their precision are not quantised.

    is_invariant: a row's result is to be the same bits whatever else is in the batch. Quantised products on a CPU, and
    `w8a8` everywhere, always keep that promise. Raises ValueError where the machine has no such form, or the name is
    unknown.
    """
    if quantize not in get_args(Quantization):
        raise ValueError(f"quantize is {quantize!r}: use {', '.join(get_args(Quantization))}")
    if device.type == "cpu":
        kept, quantised = _cpu_forms(quantize, dtype, is_invariant=is_invariant)
    else:
        kept, quantised = _gpu_forms(quantize, device, is_invariant=is_invariant)
    if quantised is None:
        return kept
    return lambda linear: kept(linear) if linear.keeps_precision else quantised(linear)


def _cpu_forms(quantize: Quantization, dtype: torch.dtype, *, is_invariant: bool) -> tuple[Form, Form | None]:
    """The form of linears that keep their precision, and that of the others where it is another one."""
    if quantize in ("int8", "fp8"):
        raise ValueError(
            f"quantize is {quantize!r}, which is for GPUs, and the device is cpu: use w8a8, which reads as many bytes "
            "and multiplies faster there"
        )
    library = library_for(dtype)
    is_invariant = is_invariant or quantize != "none"
    kept: Form = TiledLinear if is_invariant else _keep
    if library is not None:
        kept = functools.partial(NativeLinear, library=library, is_invariant=is_invariant)
    if quantize == "none":
        return kept, None
    if quantize == "w8a8":
        return kept, functools.partial(W8A8Linear.quantize, library=library)
    if library is None:
        raise ValueError("quantize is 'int4', which only the C kernels compute, and this machine cannot have them")
    return kept, functools.partial(Int4Linear.quantize, library=library)


def _gpu_forms(quantize: Quantization, device: torch.device, *, is_invariant: bool) -> tuple[Form, Form | None]:
    kept: Form = functools.partial(TiledLinear, tile=GPU_TILE) if is_invariant else _keep
    if quantize == "none":
        return kept, None
    if quantize == "w8a8":
        return kept, functools.partial(W8A8Linear.quantize, library=None)
    if quantize == "int4":
        return kept, functools.partial(Weight4Linear.quantize, is_invariant=is_invariant)
    if quantize == "fp8":
        capability = torch.cuda.get_device_capability(device)
        if capability < FP8_CAPABILITY:
            raise ValueError(
                f"quantize is 'fp8', and the compute capability of {device} is {'.'.join(map(str, capability))}: use "
                "int8, or a GPU of 8.9 or later"
            )
        return kept, functools.partial(Weight8Linear.quantize, dtype=torch.float8_e4m3fn, is_invariant=is_invariant)
    return kept, functools.partial(Weight8Linear.quantize, dtype=torch.int8, is_invariant=is_invariant)


def _keep(linear: Linear) -> Projection:
    return linear
