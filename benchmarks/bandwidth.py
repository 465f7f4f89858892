"""How fast this machine reads memory: the roof over every decode step."""

import time

import torch

BUFFER_BYTES = 2**30


class ReadBandwidth:
    """A gibibyte, far beyond any cache, that is read again at every measurement."""

    def __init__(self) -> None:
        """Written once, so that its pages exist."""
        self._buffer = torch.ones(BUFFER_BYTES // 4, dtype=torch.float32)

    def measure(self, threads: int, runs: int = 5) -> float:
        """Bytes per second of the fastest of `runs` sums over the buffer."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        fastest = float("inf")
        for _ in range(runs):
            begun = time.perf_counter()
            self._buffer.sum()
            fastest = min(fastest, time.perf_counter() - begun)
        torch.set_num_threads(before)
        return BUFFER_BYTES / fastest
