"""Where these tests compute: on the first GPU. With POINTSMAN_GPU_TESTS_ON=interpreter they run at tiny size on the CPU
instead, the kernels in Triton's interpreter: that tries the tests, not the device."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch

from engine.platform import Platform
from engine.recorder import Repeater
from kernels import Kernels

__all__ = ["DEVICE", "IS_INTERPRETED", "TOLERANCE", "WHY_NOT", "moved", "needs", "pick", "platform", "recorded"]

T = TypeVar("T")
IS_INTERPRETED = os.environ.get("POINTSMAN_GPU_TESTS_ON") == "interpreter"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda:0")
WHY_NOT = (
    None
    if IS_INTERPRETED or torch.cuda.is_available()
    else "torch finds no GPU here (POINTSMAN_GPU_TESTS_ON=interpreter tries these tests without one)"
)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def pick(full: T, tiny: T) -> T:
    """A size, or cases: those of a GPU, or the few that the interpreter does in a second."""
    return tiny if IS_INTERPRETED else full


def moved(value: Any) -> Any:
    """A tensor, or a dataclass or tuple that holds some, on the device."""
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE)
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{field.name: moved(getattr(value, field.name)) for field in dataclasses.fields(value)}
        )
    return value


def needs(dtype: torch.dtype) -> None:
    """Skip the test where the device lacks an element type."""
    if dtype == torch.float8_e4m3fn and not IS_INTERPRETED and torch.cuda.get_device_capability(DEVICE) < (8, 9):
        pytest.skip("the GPU has no float8")


def recorded(work: Callable[[], None]) -> Callable[[], None]:
    """What repeats the work: a CUDA graph of it, or the work itself."""
    if IS_INTERPRETED:
        return work
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def platform(*, graphs: bool = True) -> Platform:
    """The device with its kernels. graphs: whether steps are recorded."""
    if not IS_INTERPRETED:
        return Platform.of(str(DEVICE), graphs=graphs)
    from kernels import gpu

    def kernels(_dtype: torch.dtype, is_invariant: bool) -> Kernels:
        return gpu.build(is_invariant=is_invariant)

    return Platform(DEVICE, kernels, Repeater() if graphs else None)
