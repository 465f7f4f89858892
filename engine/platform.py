"""What computes: a device, its kernels, how steps are recorded on it, and what is known of its memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.recorder import CudaRecorder, Recorder
from kernels import Kernels, kernels_for

__all__ = ["CudaMemory", "DeviceMemory", "Platform", "resolve_device"]


class DeviceMemory(Protocol):
    """Memory that has an end."""

    def total_bytes(self) -> int:
        """All of it."""
        ...

    def free_bytes(self) -> int:
        """What nobody holds, caches of this process given back first."""
        ...

    def peak_bytes(self, work: Callable[[], None]) -> int:
        """The most that `work` held at any time beyond what was held before."""
        ...


class CudaMemory:
    """The memory of a GPU, which other processes may use, too."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def total_bytes(self) -> int:
        """See DeviceMemory."""
        return torch.cuda.mem_get_info(self._device)[1]

    def free_bytes(self) -> int:
        """See DeviceMemory."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)[0]

    def peak_bytes(self, work: Callable[[], None]) -> int:
        """See DeviceMemory."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


@dataclass(frozen=True, slots=True)
class Platform:
    """device: where tensors lie. kernels: by dtype and whether rows are to be the same bits in any batch. recorder:
    records decode steps (None: they are computed call by call). memory: None where the operating system hands it out
    page by page."""

    device: torch.device
    kernels: Callable[[torch.dtype, bool], Kernels]
    recorder: Recorder | None = None
    memory: DeviceMemory | None = None

    @classmethod
    def of(cls, name: str, *, graphs: bool = True) -> "Platform":
        """The platform of a device by its name, or of the first GPU, else the CPU, for `auto`. graphs: whether a GPU
        records steps.

        Raises ValueError for a device that this machine lacks.
        """
        device = torch.device(resolve_device(name))

        def kernels(dtype: torch.dtype, is_invariant: bool) -> Kernels:
            return kernels_for(device, dtype, is_invariant=is_invariant)

        if device.type != "cuda":
            return cls(device, kernels)
        if not torch.cuda.is_available():
            raise ValueError(f"device is {name!r}, and torch finds no GPU here: use device=cpu or auto")
        torch.cuda.set_device(device)
        return cls(device, kernels, CudaRecorder(device) if graphs else None, CudaMemory(device))

    @property
    def runs_beside(self) -> bool:
        """Whether the device computes while the step loop goes on."""
        return self.device.type == "cuda"


def resolve_device(name: str) -> str:
    """`cpu` or `cuda:N`: what `name` means on this machine."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda:0" if name == "cuda" else name
