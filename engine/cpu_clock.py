"""CPU time of what a thread did, asked for only where it matters."""

import time

__all__ = ["CpuClock"]


class CpuClock:
    """Tells how much CPU time the calling thread spent since a moment, without having read it then.

    Reading a thread's CPU time is a system call, ten times as dear as the wall clock. So it is read once in a while,
    and otherwise bounded from below: what lies between that reading and the moment took at most its wall time.

        anchor (CPU and wall time read) .... moment (wall time read) .... now (CPU time read)
               at most its wall time               at least the rest
    """

    def __init__(self, stale_s: float) -> None:
        """stale_s: an anchor of this age is renewed. A bound is too low by so much at most."""
        self._stale_s = stale_s
        self._wall_s = self._cpu_s = float("-inf")

    def moment(self) -> float:
        """The wall time now (`time.perf_counter`), from which `spent_since` can be asked."""
        now = time.perf_counter()
        if now - self._wall_s > self._stale_s:
            self._cpu_s, self._wall_s = time.thread_time(), time.perf_counter()
            return self._wall_s
        return now

    def spent_since(self, moment: float) -> float:
        """A lower bound of the CPU seconds that the calling thread, which must be the one that called `moment`, has
        spent since then."""
        return max(0.0, time.thread_time() - self._cpu_s - (moment - self._wall_s))
