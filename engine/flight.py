"""A step under way: its plan, its draws, and where its logits will be."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import torch

from engine.cost_model import StepCost
from engine.draws import StepDraws
from engine.plan import StepPlan
from engine.runner import RunnerOutput

__all__ = ["Flight", "Forward"]


class Forward:
    """One forward pass, which begins at once: on `thread`, or here and now without one.

    On a GPU that only queues it, so there the caller goes on either way; a CPU computes it before anything else unless
    it has a thread. waited_s: for how long the step loop could do nothing else; launch_s: what queueing it took of
    that, on a GPU.
    """

    def __init__(
        self, work: Callable[[], RunnerOutput], thread: Executor | None, *, gpu: torch.device | None = None
    ) -> None:
        """gpu: what does the work, behind what was queued before."""
        self.waited_s = self.launch_s = 0.0
        self._seconds, self._is_kept = 0.0, False
        self._work, self._gpu = work, gpu
        self._output: Future[RunnerOutput] | RunnerOutput
        self._marks: list[torch.cuda.Event] = []  # on a GPU: when it begins, when it ends, when its tokens are drawn
        if gpu is not None:
            began = time.perf_counter()
            self._mark()
            self._output = work()
            self._mark()
            self.waited_s = self.launch_s = time.perf_counter() - began
        elif thread is None:
            self._output = self._compute()
            self.waited_s = self._seconds
        else:
            self._output = thread.submit(self._compute)

    @property
    def seconds(self) -> float:
        """What the pass took. Waits for a GPU that has not finished it."""
        return self._between(0) if self._marks else self._seconds

    @property
    def drawing_s(self) -> float:
        """What a GPU took from its end to the last of its draws; 0 elsewhere."""
        return self._between(1) if len(self._marks) > 2 else 0.0

    def mark_drawn(self) -> None:
        """Note that all draws from its logits are queued."""
        if self._marks:
            self._mark()

    def _mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._marks.append(torch.cuda.current_stream(self._gpu).record_event(event))

    def _between(self, index: int) -> float:
        first, last = self._marks[index : index + 2]
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000

    def result(self) -> RunnerOutput:
        """Its output, once it is there. Raises what the pass raised."""
        if isinstance(self._output, Future):
            began = time.perf_counter()
            self._output = self._output.result()
            self.waited_s = time.perf_counter() - began
        return self._output

    def keep(self) -> None:
        """Let the output outlast other passes of its runner, which may write to where it lies."""
        if not self._is_kept:
            output = self.result()
            hidden = None if output.hidden is None else output.hidden.clone()
            self._output, self._is_kept = replace(output, logits=output.logits.clone(), hidden=hidden), True

    def _compute(self) -> RunnerOutput:
        began = time.perf_counter()
        output = self._work()
        self._seconds = time.perf_counter() - began
        return output


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that was launched and not collected. ids: what its clients call the requests in it."""

    plan: StepPlan
    ids: tuple[str, ...]
    cost: StepCost
    draws: StepDraws
    forward: Forward
