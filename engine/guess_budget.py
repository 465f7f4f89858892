"""When a grammar is no longer asked about guesses: drafts that cost too much are to end, not the answer."""

import time

from engine.mask_budget import MaskBudget

__all__ = ["GuessBudget", "Moment"]

Moment = tuple[float, float]
"""Seconds by the wall clock, and CPU seconds of the process."""


class GuessBudget:
    """Counts the slow masks of one request that only guesses needed, as `MaskBudget` counts those of its answer.

    By CPU time of the whole process, since some backends work on threads of their own, and never more than the clock on
    the wall says. What other threads did meanwhile is counted, too, but all that is lost by it are drafts.
    """

    def __init__(self, slow_s: float) -> None:
        """slow_s: CPU time of a mask that is slow."""
        self._budget = MaskBudget(slow_s)
        self.is_spent = False
        """Whether no more guesses are to be made."""

    def begin(self) -> Moment:
        """The moment now, to `count` from."""
        return time.perf_counter(), time.process_time()

    def count(self, began: Moment, n_masks: int = 1) -> float:
        """Count masks that were found since `began`, alike. Returns the seconds by the wall clock."""
        seconds = time.perf_counter() - began[0]
        if seconds >= self._budget.slow_s * n_masks:
            cpu_s = min(seconds, time.process_time() - began[1])
            self.is_spent = self._budget.is_spent(cpu_s, n_masks) or self.is_spent
        return seconds

    def give_up(self) -> None:
        """A guess was beyond the backend's limits: others would be, too, and each of them is dear."""
        self.is_spent = True
