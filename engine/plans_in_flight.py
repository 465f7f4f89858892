"""Steps that were planned and are not committed yet. No torch."""

from collections import deque

from engine.blocks import BlockPool
from engine.plan import Row, StepPlan
from engine.request import Request
from engine.stats import Counters

__all__ = ["PlansInFlight"]


class PlansInFlight:
    """The plans of one model that were begun, oldest first. They end in their order.

    pool: what a plan writes is nobody else's until it has ended. counters: of steps and rows.
    """

    def __init__(self, pool: BlockPool, counters: Counters) -> None:
        self._pool, self._counters = pool, counters
        self._step_id = 0
        self._plans: deque[tuple[StepPlan, tuple[Request, ...]]] = deque()

    def begin(
        self,
        rows: tuple[Row, ...],
        requests: tuple[Request, ...],
        *,
        resumed: tuple[str, ...] = (),
        copies: tuple[tuple[int, int], ...] = (),
    ) -> StepPlan:
        """Number a step and put it in flight. requests: those of the rows, in their order; resumed, copies: see
        StepPlan."""
        self._step_id += 1
        plan = StepPlan(self._step_id, rows, resumed, copies)
        self._plans.append((plan, requests))
        self._pool.begin_step(plan.step_id)
        self._counters.steps += 1
        self._counters.rows += len(rows)
        return plan

    def end(self, step_id: int) -> tuple[StepPlan, tuple[Request, ...]]:
        """Take the oldest plan out, with the requests of its rows. Raises RuntimeError if that is not `step_id`."""
        if not self._plans or self._plans[0][0].step_id != step_id:
            raise RuntimeError(f"step {step_id} is not the one in flight: commit plans in their order")
        plan, requests = self._plans.popleft()
        self._pool.end_step(step_id)
        return plan, requests

    def check_empty(self) -> None:
        """Raise RuntimeError if a step is under way."""
        if self._plans:
            step_id = self._plans[0][0].step_id
            raise RuntimeError(f"step {step_id} is not committed: commit it before the next schedule()")

    def compute(self, request: Request) -> bool:
        """Whether a step under way computes something of the request."""
        return any(request in requests for _, requests in self._plans)
