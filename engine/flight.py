"""A step under way: its plan, its draws, and where its logits will be."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from engine.cost_model import StepCost
from engine.draws import StepDraws
from engine.plan import StepPlan
from engine.runner import RunnerOutput

__all__ = ["Flight", "Forward"]


class Forward:
    """One forward pass, which begins at once: on `thread`, or here and now without one.

    On a GPU that only queues it, so there the caller goes on either way; a CPU computes it before anything else unless
    it has a thread. seconds: what the pass took; waited_s: for how long of that the step loop could do nothing else.
    """

    def __init__(self, work: Callable[[], RunnerOutput], thread: Executor | None) -> None:
        self.seconds = self.waited_s = 0.0
        self._work = work
        self._output: Future[RunnerOutput] | RunnerOutput
        if thread is None:
            self._output = self._compute()
            self.waited_s = self.seconds
        else:
            self._output = thread.submit(self._compute)

    def result(self) -> RunnerOutput:
        """Its output, once it is there. Raises what the pass raised."""
        if isinstance(self._output, Future):
            began = time.perf_counter()
            self._output = self._output.result()
            self.waited_s = time.perf_counter() - began
        return self._output

    def _compute(self) -> RunnerOutput:
        began = time.perf_counter()
        output = self._work()
        self.seconds = time.perf_counter() - began
        return output


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that was launched and not collected. ids: what its clients call the requests in it."""

    plan: StepPlan
    ids: tuple[str, ...]
    cost: StepCost
    draws: StepDraws
    forward: Forward
