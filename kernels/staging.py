"""Small arrays that go to the device in one copy, into tensors that stay where they are."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

__all__ = ["Field", "Staging", "to_device"]

ALIGNMENT = 16
Field = tuple[Sequence[int], torch.dtype]
"""Shape and dtype of one array."""


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as a tensor on the device. A GPU is not waited for: the copy is queued from pinned memory, which torch
    keeps until it is done."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class Staging:
    """Named arrays, filled on the host and sent together; the tensors on the device never move, so a CUDA graph may
    read them.

        numpy views of pinned buffer 0 | 1 | 2 …   --one copy-->   device buffer, seen as `tensors`

    The host may write the next contents while a copy is under way: buffers take turns, and one that a copy still reads
    is waited for (another engine's worst race; see vLLM's notes on its model runner V2). On a CPU there is one buffer,
    and what is written is there at once.
    """

    def __init__(self, fields: Mapping[str, Field], device: torch.device, n_buffers: int = 3) -> None:
        """fields: by name, shape and dtype. n_buffers: of pinned memory, where there is a GPU."""
        self._layout: dict[str, tuple[int, Sequence[int], torch.dtype]] = {}
        size = 0
        for name, (shape, dtype) in fields.items():
            self._layout[name] = (size, shape, dtype)
            n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            size += -(-n_bytes // ALIGNMENT) * ALIGNMENT
        self._is_cuda = device.type == "cuda"
        self._device = torch.zeros(max(size, ALIGNMENT), dtype=torch.uint8, device=device)
        if self._is_cuda:
            self._host = [torch.zeros_like(self._device, device="cpu", pin_memory=True) for _ in range(n_buffers)]
            self._sent: list[torch.cuda.Event | None] = [None] * n_buffers
        else:
            self._host = [self._device]
        self._turn = 0
        self.tensors = self._views(self._device)
        """By name, on the device."""
        self._arrays = [{name: view.numpy() for name, view in self._views(host).items()} for host in self._host]

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, what to fill before the next `send`; holds what was there some time ago."""
        if self._is_cuda and (event := self._sent[self._turn]) is not None:
            event.synchronize()
        return self._arrays[self._turn]

    def send(self, n_last: int | None = None) -> None:
        """Start to copy what was filled to the device; work queued on the current stream afterwards sees it.

        n_last: numbers of the last field that are sent, where it is filled in part.
        """
        if not self._is_cuda:
            return
        size = len(self._device)
        if n_last is not None:
            first, _, dtype = self._layout[next(reversed(self._layout))]
            size = first + n_last * dtype.itemsize
        self._device[:size].copy_(self._host[self._turn][:size], non_blocking=True)
        self._sent[self._turn] = torch.cuda.current_stream(self._device.device).record_event()
        self._turn = (self._turn + 1) % len(self._host)

    def _views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        views = {}
        for name, (start, shape, dtype) in self._layout.items():
            n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            views[name] = buffer[start : start + n_bytes].view(dtype).view(*shape)
        return views
