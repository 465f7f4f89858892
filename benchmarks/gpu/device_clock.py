"""How long the device works at what the engine queues, step by step, without a wait in between."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["DeviceClock"]

P = ParamSpec("P")
R = TypeVar("R")


class DeviceClock:
    """Puts marks around calls: events in the stream of a GPU, the time of day on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = defaultdict(list)
        self._seconds: dict[str, float] = defaultdict(float)

    def around(self, name: str, call: Callable[P, R]) -> Callable[P, R]:
        """The same call, timed under a name."""
        if self._device.type != "cuda":

            def timed(*arguments: P.args, **options: P.kwargs) -> R:
                began = time.perf_counter()
                result = call(*arguments, **options)
                self._seconds[name] += time.perf_counter() - began
                return result

            return timed

        def marked(*arguments: P.args, **options: P.kwargs) -> R:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            result = call(*arguments, **options)
            end.record()
            self._marks[name].append((begin, end))
            return result

        return marked

    def take(self) -> dict[str, float]:
        """Seconds by name since the last time. Waits for the device."""
        for name, marks in self._marks.items():
            marks[-1][1].synchronize()
            self._seconds[name] += sum(begin.elapsed_time(end) for begin, end in marks) / 1000
        found = dict(self._seconds)
        self._marks.clear()
        self._seconds.clear()
        return found
