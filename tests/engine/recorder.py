"""Keeps the logits of every position that a core computes, to compare them with those of another schedule."""

import torch

from engine.core import EngineCore
from engine.plan import StepPlan
from engine.runner import RunnerOutput
from tests.engine.harness import instance_of


class Recorder:
    """logits: by request id and position, float32 [vocab]."""

    def __init__(self, core: EngineCore) -> None:
        self.logits: dict[tuple[str, int], torch.Tensor] = {}
        runner = instance_of(core)._runner
        run = runner.run

        def recorded(plan: StepPlan, drawn: torch.Tensor | None = None) -> RunnerOutput:
            output = run(plan, drawn)
            self._keep(plan, output.logits)
            return output

        runner.run = recorded  # type: ignore[method-assign]

    def of(self, request_id: str) -> dict[int, torch.Tensor]:
        """The logits of one request, by position."""
        return {position: row for (name, position), row in self.logits.items() if name == request_id}

    def _keep(self, plan: StepPlan, logits: torch.Tensor) -> None:
        rows = iter(logits.clone())  # sampling changes them in place
        for row in plan.rows:
            for position in range(row.start + row.n - row.n_logits, row.start + row.n):
                self.logits[row.request_id, position] = next(rows)
