"""The steps of one model: schedule, run, mask, sample, commit.

    depth 0   launch N     masks N   draw N                  collect N
    depth 1   (under way)  masks N   draw N   launch N + 1   collect N

With depth 1, what the host does with the tokens of a step lies beside the forward pass of the next one. That one takes
its tokens from where they were drawn, so it can be launched before the host has seen them. A draft follows the newest
token, so a step with drafts is never launched ahead.
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor

import torch

from engine.cost_model import CostModel
from engine.draws import StepDraws
from engine.flight import Flight, Forward
from engine.heartbeat import Pulse
from engine.live_requests import LiveRequests
from engine.messages import Event, Prepared
from engine.pair_config import InstanceOptions
from engine.plan import Accepted, Row, StepPlan, StepResult
from engine.runner import ModelRunner, RunnerOutput
from engine.sampler import Sampler
from engine.scheduler import Scheduler
from engine.speculation.config import Verification
from engine.speculation.speculator import Speculator
from engine.stats import Counters

__all__ = ["StepLoop"]


class StepLoop:
    """Computes step after step of one model, for its live requests.

    flight: the step that is under way between two calls of `step`. speculator: where drafts come from.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        sampler: Sampler,
        live: LiveRequests,
        counters: Counters,
        *,
        cost_model: CostModel,
        options: InstanceOptions,
        verification: Verification,
        thread: Executor | None,
        clock: Callable[[], float],
    ) -> None:
        """cost_model: learns what forward passes take. verification, thread: see ModelInstance. clock: seconds, for
        what is told of prepared requests."""
        self._runner, self._scheduler, self._sampler, self._live = runner, scheduler, sampler, live
        self._counters, self._cost_model, self._max_hold_s = counters, cost_model, options.max_hold_s
        self._verification, self._thread, self._clock = verification, thread, clock
        self._runs_ahead = options.depth(runs_beside=runner.runs_beside) > 0
        self.flight: Flight | None = None
        self.speculator: Speculator | None = None

    def step(self, pulse: Pulse) -> list[Event]:
        """Compute one step; returns what the requests in it get to see. pulse: is told whom it is for, and for how
        long."""
        flight, self.flight = self.flight, None
        if flight is not None:
            pulse.beat(flight.ids, self._cost_model.seconds(flight.cost))
            return self._finish(flight, pulse)
        failed_drafts = self._draft()
        began = time.perf_counter()
        flight = self._launch(self._scheduled(self._scheduler.schedule), pulse)
        if flight is None:
            return failed_drafts
        events = self._finish(flight, pulse)
        if self.speculator is not None:
            self.speculator.learn_step(flight.plan, flight.forward.seconds, time.perf_counter() - began)
        return failed_drafts + events

    def _finish(self, flight: Flight, pulse: Pulse) -> list[Event]:
        """Draw the tokens of a step that is under way, launch the next one where that needs none of them, and end
        it."""
        began = time.perf_counter()
        draws = flight.draws
        draws.fill_masks()
        filled = time.perf_counter()
        output = flight.forward.result()
        computed = time.perf_counter()
        draws.draw(output.logits)
        flight.forward.mark_drawn()
        self._counters.bookkeeping_s += filled - began
        if self._runner.runs_beside:
            self._counters.launch_s += time.perf_counter() - computed
        else:
            self._counters.sample_s += time.perf_counter() - computed
        if self._may_run_ahead(draws):
            awaited = draws.awaited()
            plan = self._scheduled(lambda: self._scheduler.schedule_ahead(awaited))
            self.flight = self._launch(plan, pulse, draws.tokens)
        return self._collect(flight, output)

    def keep_flight(self) -> None:
        """Another model's drafts are about to be computed between the launch of a step and its draws."""
        if self.flight is not None and self._runner.reuses_outputs:
            self.flight.forward.keep()

    def _may_run_ahead(self, draws: StepDraws) -> bool:
        if not self._runs_ahead or draws.has_tails or len(draws.generations) != self._scheduler.n_running:
            return False
        return self.speculator is None or self.speculator.may_run_ahead()

    def _draft(self) -> list[Event]:
        """Let the requests that yield a token in the coming step have drafts; returns the end of those that a grammar's
        backend failed for."""
        if self.speculator is None:
            return []
        streams = [
            generation
            for request in self._scheduler.streams()
            if (generation := self._live.generations.get(request.id)) is not None and generation.output
        ]
        if not streams:
            return []
        faults = self.speculator.draft(streams)
        return [self._live.fail(self._live.generations[request_id], fault) for request_id, fault in faults.items()]

    def _scheduled(self, schedule: Callable[[], StepPlan | None]) -> StepPlan | None:
        began = time.perf_counter()
        plan = schedule()
        self._counters.schedule_s += time.perf_counter() - began
        return plan

    def _launch(self, plan: StepPlan | None, pulse: Pulse, drawn: torch.Tensor | None = None) -> Flight | None:
        """Begin a step. drawn: what the one before drew, where the plan refers to it."""
        if plan is None:
            return None
        cost = self._cost_model.step(plan.rows)
        ids = tuple(self._live.client_id(row.request_id) for row in plan.rows)
        pulse.beat(ids, self._cost_model.seconds(cost))
        draws = StepDraws(
            plan, self._live.requests, self._live.generations, self._live.kept, self._sampler, self._verification
        )
        gpu = self._runner.device if self._runner.runs_beside else None
        forward = Forward(lambda: self._runner.run(plan, drawn), self._thread, gpu=gpu)
        return Flight(plan, ids, cost, draws, forward)

    def _collect(self, flight: Flight, output: RunnerOutput) -> list[Event]:
        """End a step: its tokens are accepted and committed, its requests' clients told."""
        draws, counters = flight.draws, self._counters
        began = time.perf_counter()
        draws.read()
        read = time.perf_counter()
        draws.accept()
        result = StepResult(flight.plan.step_id)
        mask_s = 0.0
        for generation in draws.generations:
            if self.speculator is not None:
                self.speculator.learn(generation)
            self._live.force(generation, draws.faults)
            tokens = tuple(generation.uncommitted())
            result.accepted[generation.request.id] = Accepted(tokens, generation.n_tail, generation.path)
            mask_s += generation.note_mask_s()
        if settled := self._verified(flight.plan, result):
            self._runner.settle(settled)
        self._scheduler.commit(result)
        if output.hidden is not None:
            self._keep_hidden(flight.plan, output.hidden)
        self._cost_model.observe(flight.cost, flight.forward.seconds)
        events: list[Event] = [self._prepared(row, logits, output) for row, logits in draws.prepared]
        events += [
            self._live.fail(self._live.generations[request_id], fault) for request_id, fault in draws.faults.items()
        ]
        events += self._live.events_of(draws.generations)
        forward = flight.forward
        counters.forward_s += forward.seconds
        counters.forward_wait_s += forward.waited_s
        counters.launch_s += forward.launch_s
        if self._runner.runs_beside:  # what is read then waits for the forward pass, too
            counters.forward_wait_s += read - began
            counters.sample_s += forward.drawing_s
        else:
            counters.sample_s += read - began
        counters.mask_s += mask_s
        counters.bookkeeping_s += time.perf_counter() - read - mask_s
        return events

    def _keep_hidden(self, plan: StepPlan, hidden: torch.Tensor) -> None:
        """Note for each request in a step what its newest token was drawn from, unless others were forced after it."""
        first = 0
        for row in plan.rows:
            generation = self._live.generations.get(row.request_id)
            if generation is not None and row.n_logits:
                last = first + (1 + generation.path[-1] if generation.path else 0)
                generation.hidden = hidden[last].clone() if generation.request.remaining == 1 else None
            first += row.n_logits

    @staticmethod
    def _verified(plan: StepPlan, result: StepResult) -> list[tuple[Row, tuple[int, ...]]]:
        """The rows of a step that had a tail, with what of it was verified."""
        nothing = Accepted(())
        return [(row, result.accepted.get(row.request_id, nothing).path) for row in plan.rows if row.n_logits > 1]

    def _prepared(self, row: Row, logits: torch.Tensor, output: RunnerOutput) -> Prepared:
        request = self._live.requests[row.request_id]
        if request.logits_kept:
            self._live.kept[request.id] = logits
        self._scheduler.set_deadline(request, self._clock() + self._max_hold_s)
        log_p = torch.log_softmax(logits.float(), dim=-1)
        best = torch.topk(logits.float(), 2).values
        state = output.states.get(request.id, torch.empty(0))
        timeline = request.timeline
        return Prepared(
            id=request.id,
            handle=request.id,
            state=state.float().cpu().contiguous().numpy().tobytes(),
            state_shape=tuple(state.shape),
            entropy=float(-(log_p.exp() * log_p).sum()),
            margin=float(best[0] - best[1]),
            prompt_tokens=timeline.prompt_tokens,
            cached_tokens=timeline.cached_tokens,
            computed_tokens=timeline.computed_tokens,
            queue_s=timeline.admitted_s - timeline.arrived_s,
            prefill_s=self._clock() - timeline.admitted_s,
            cache_miss=timeline.cache_miss,
            first=self._live.openings.draw(request.id, logits),
        )
