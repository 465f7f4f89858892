"""Keeps the logits of every position that a core computes, to compare them with those of another schedule."""

import torch

from engine.core import EngineCore
from engine.plan import Accepted, StepPlan, StepResult
from engine.runner import RunnerOutput
from tests.engine.harness import MODEL, instance_of


class Recorder:
    """logits: by request id and position, float32 [vocab]. Of drafts, those of what was verified: what comes after a
    token that the answer has not got is compared with nothing."""

    def __init__(self, core: EngineCore, name: str = MODEL) -> None:
        self.logits: dict[tuple[str, int], torch.Tensor] = {}
        self._steps: dict[int, tuple[StepPlan, torch.Tensor]] = {}
        instance = instance_of(core, name)
        run, commit = instance._runner.run, instance.scheduler.commit

        def recorded(plan: StepPlan, drawn: torch.Tensor | None = None) -> RunnerOutput:
            output = run(plan, drawn)
            if plan.rows and not any(row.is_draft for row in plan.rows):
                self._steps[plan.step_id] = plan, output.logits.clone()  # sampling changes them in place
            return output

        def committed(result: StepResult) -> None:
            commit(result)
            if result.step_id in self._steps:
                self._keep(*self._steps.pop(result.step_id), result)

        instance._runner.run = recorded  # type: ignore[method-assign]
        instance.scheduler.commit = committed  # type: ignore[method-assign]

    def of(self, request_id: str) -> dict[int, torch.Tensor]:
        """The logits of one request, by position."""
        return {position: row for (name, position), row in self.logits.items() if name == request_id}

    def _keep(self, plan: StepPlan, logits: torch.Tensor, result: StepResult) -> None:
        first = 0
        for row in plan.rows:
            path = result.accepted.get(row.request_id, Accepted(())).path
            if row.n_logits:
                for depth, node in enumerate((0, *(1 + node for node in path))):
                    self.logits[row.request_id, row.start + row.n - row.n_logits + depth] = logits[first + node]
            first += row.n_logits
