"""Work that is recorded once and repeated: a CUDA graph on a GPU, a plain call elsewhere."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

__all__ = ["CudaRecorder", "Recorder", "Repeater"]

WARM_UPS = 2
"""Runs before a capture: the first ones compile kernels, choose products and allocate workspaces, none of which a graph
may hold."""


class Recorder(Protocol):
    """Records what a function does to tensors."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run `work`, and return what repeats it. It reads and writes only tensors that stay where they are, and
        waits for no device."""
        ...


class Repeater:
    """Calls the function again: the definition, and what a CPU does. A function that reads anything but its tensors
    shows it here, too."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See Recorder."""
        work()
        return work


class CudaRecorder:
    """CUDA graphs that share one pool of memory. A graph's results hold until another one of the pool is replayed, so
    whoever needs them longer copies them before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See Recorder. Raises RuntimeError for work that waits for the device, or allocates pinned memory."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile (a pair's other model is loaded by the same thread, grammars by others).
        with (
            _without_collection(),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage is collected in between: it could be another graph, or pinned memory, whose end is no part of what is
    captured."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
