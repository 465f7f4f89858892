"""Seconds that a device takes for a call, without what the host takes to launch it."""

import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.timing import Spread

__all__ = ["Stopwatch"]

RUNS = 7
RUN_S = 0.005
"""A run lasts at least so long: events resolve half a microsecond."""
MAX_CALLS = 4096
Call = Callable[[], object]


class Stopwatch:
    """Times calls on a CUDA device with events, recorded as a graph so that no launch shows. On a CPU, by the clock."""

    def __init__(self, device: torch.device, runs: int = RUNS) -> None:
        """runs: measurements of which a Spread is made."""
        self._device, self._runs = device, runs

    def seconds(self, calls: Sequence[Call], *, is_recorded: bool = True) -> Spread:
        """Seconds per call. calls: the same work over different buffers, which take turns so that none is in a cache
        when its turn comes. is_recorded: whether a graph can hold the calls; else their launches count where the device
        waits for them."""
        for _ in range(2 if self._device.type == "cuda" else 0):  # compiles kernels, chooses products
            for call in calls[:2]:
                call()
        if self._device.type != "cuda":
            return Spread.of([self._by_clock(calls[index % len(calls)]) for index in range(min(self._runs, 2))])
        lap = self._record(calls) if is_recorded else _all(calls)
        lap()
        once = self._by_events(lap, 1)
        n_laps = max(1, min(MAX_CALLS // len(calls) or 1, int(RUN_S / max(once, 1e-7)) + 1))
        return Spread.of([self._by_events(lap, n_laps) / (n_laps * len(calls)) for _ in range(self._runs)])

    def _record(self, calls: Sequence[Call]) -> Callable[[], object]:
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay

    def _by_events(self, lap: Callable[[], object], n_laps: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(n_laps):
            lap()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def _by_clock(self, call: Call) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began


def _all(calls: Sequence[Call]) -> Callable[[], object]:
    def lap() -> None:
        for call in calls:
            call()

    return lap
