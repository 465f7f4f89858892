"""One model in the engine: schedule, run, mask, sample, commit, and what its requests get to see of it."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import torch

from engine.blocks import BlockPool, root_key
from engine.chunk_limit import Shape
from engine.config import SchedulerConfig
from engine.cost_model import CostModel
from engine.detokenizer import IncrementalDecoder
from engine.draws import StepDraws
from engine.flight import Flight, Forward
from engine.generation import Generation
from engine.guarded_matcher import GrammarFault, GuardedMatcher, TokenMatcher
from engine.heartbeat import Pulse
from engine.messages import Event, Failed, ModelInfo, Prepare, Prepared, Submit, failed
from engine.openings import Openings
from engine.pair_config import InstanceOptions
from engine.plan import Accepted, Row, StepPlan, StepResult
from engine.request import EngineError, FinishReason, Request, RequestRefused, SamplingParams
from engine.runner import ModelRunner, RunnerOutput
from engine.sampler import Sampler
from engine.sampling_row import check_token_ids
from engine.scheduler import Scheduler
from engine.speculation.config import Verification
from engine.speculation.draft_model import DraftModel
from engine.speculation.speculator import Speculator
from engine.stats import Counters
from engine.tokenizer import Tokenizer

__all__ = ["ModelInstance"]


class ModelInstance:
    """Everything that belongs to one model. Not thread-safe: the core's thread owns it."""

    def __init__(
        self,
        info: ModelInfo,
        runner: ModelRunner,
        tokenizer: Tokenizer,
        *,
        scheduler: SchedulerConfig,
        cost_model: CostModel,
        end_ids: frozenset[int],
        options: InstanceOptions | None = None,
        verification: Verification = "coupled",
        thread: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """verification: of drafts, see SpeculationConfig. thread: computes the forward passes (None: the caller
        does)."""
        self.info, self.counters = info, Counters()
        self._options = options or InstanceOptions()
        self._runner, self._tokenizer, self.end_ids, self._clock = runner, tokenizer, end_ids, clock
        self.scheduler = Scheduler(
            scheduler,
            BlockPool(runner.n_blocks, runner.block_size, prefix_cache=self._options.prefix_cache),
            max_model_len=info.max_model_len,
            groups=runner.groups,
            splits_blocks=not runner.state_layers,
            counters=self.counters,
            cost_model=cost_model,
            clock=clock,
        )
        self._sampler = Sampler(runner.kernels, runner.config.vocab_size, runner.device, scheduler.rows)
        self._openings = Openings(self._sampler)
        self.cost_model = cost_model
        self._thread, self._verification = thread, verification
        self.speculator: Speculator | None = None
        """Where drafts come from; set once, before the first request, by whoever loads the models: a draft model is
        another instance."""
        self._runs_ahead = self._options.depth(runs_beside=runner.runs_beside) > 0
        self._flight: Flight | None = None
        self._requests: dict[str, Request] = {}
        self._generations: dict[str, Generation] = {}  # by request id
        self._by_submit: dict[str, Generation] = {}
        self._kept: dict[str, torch.Tensor] = {}  # by request id: the logits [vocab] of a prepared prompt's last token

    def warm_up(self) -> None:
        """Compile what the first draws would have to wait for, on a GPU."""
        if self._runner.runs_beside:
            self._sampler.warm_up()

    def draft_model(self, thread: Executor | None, *, vocab_size: int, wants_distributions: bool) -> DraftModel:
        """This model as one that drafts for another, over its own pages and what its prefix cache holds. thread: that
        of the forward passes. vocab_size: of the other. wants_distributions: see DraftModel."""
        return DraftModel(
            self._runner,
            self.scheduler.guests,
            Sampler(self._runner.kernels, vocab_size, self._runner.device, self.scheduler.max_running),
            window=self.scheduler.window,
            vocab_size=vocab_size,
            root_key=self.root_key,
            n_hosts=lambda: self.scheduler.n_running,
            cost_model=self.cost_model,
            max_tokens=self.scheduler.config.budget,
            before=self._keep_flight,
            thread=thread,
            wants_distributions=wants_distributions,
        )

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something, or end one that is under way."""
        return self._flight is not None or self.scheduler.has_work

    @property
    def busy_s(self) -> float:
        """Seconds that all steps so far have taken, those of forward passes under other models' steps included."""
        counted = self.counters
        parts = (counted.schedule_s, counted.forward_s, counted.mask_s, counted.sample_s, counted.bookkeeping_s)
        return sum(parts) + counted.draft_s

    @property
    def n_live(self) -> int:
        """Submitted requests that have not ended."""
        return len(self._by_submit)

    def earliest_deadline(self) -> float | None:
        """When the next request must be ended or released, on the instance's clock."""
        return self.scheduler.earliest_deadline()

    def slack_s(self) -> float | None:
        """Seconds that the request whose deadline comes next could still lose: those until then, less what its known
        tokens and, where it says how many more it wants, those will take by prediction."""
        request = self.scheduler.most_pressing()
        if request is None or request.deadline_s is None:
            return None
        wanted, generation = 0, self._generations.get(request.id)
        if generation is not None and generation.params.max_tokens is not None:
            wanted = generation.n_left
        known, cost_model = Shape(request.computed, len(request.tokens) - request.computed, 1), self.cost_model
        needed_s = cost_model.seconds(cost_model.step([known]))
        if wanted > 1:
            needed_s += (wanted - 1) * cost_model.seconds(cost_model.step([Shape(len(request.tokens), 1, 1)]))
        return request.deadline_s - self._clock() - needed_s

    def prepare(self, command: Prepare) -> None:
        """Queue a prefill that is held once it is done. Raises RequestRefused."""
        if command.params is not None:
            self._check_params(command.params)
        request = self._request(command.id, command.tokens, command.salt)
        if not 0 <= command.turn_start < max(1, len(command.tokens)):
            message = f"turn_start is {command.turn_start}: use a token of the prompt, 0 to {len(command.tokens) - 1}"
            raise RequestRefused("bad_turn_start", message)
        request.holds, request.turn_start = True, command.turn_start
        request.wants_state = bool(self._runner.state_layers)
        self.scheduler.add(request)
        self._requests[request.id] = request
        if command.params is not None:
            self._openings.add(self._generation(command.id, request, command.params))

    def submit(self, command: Submit, matcher: TokenMatcher | None) -> list[Event]:
        """Queue a generation, or continue a held prefill. Raises RequestRefused, GrammarFault."""
        self._check_params(command.params)
        self._check_tokens(command.prediction, "the prediction")
        deadline_s = None if command.deadline_s is None else self._clock() + command.deadline_s
        if command.handle is not None:
            if not self.holds(command.handle):
                message = f"{self.info.name} holds no prefill {command.handle!r}: submit the prompt's tokens"
                raise RequestRefused("unknown_handle", message)
            request = self._requests[command.handle]
            self.scheduler.set_deadline(request, deadline_s)
        else:
            request = self._request(command.id, command.tokens or [], command.salt)
            request.priority, request.deadline_s = command.priority, deadline_s
            self.scheduler.add(request)
            self._requests[request.id] = request
        self.counters.submitted += 1
        try:
            generation = self._continued(command, request) or self._begin(command, request, matcher)
            self.scheduler.extend(request, generation.output)
        except EngineError:
            self._forget(request)
            raise
        if command.handle is not None:
            self.scheduler.resume(request, priority=command.priority)
        # Tokens forced at the very start go out with the first sampled one, unless they are the whole answer already.
        return [] if generation.reason is None else self._events_of([generation])

    def cancel(self, submit_id: str) -> list[Event]:
        """End a submitted request now; unknown ids are ignored."""
        generation = self._by_submit.get(submit_id)
        if generation is None:
            return []
        generation.end(FinishReason.CANCELLED)
        return self._events_of([generation])

    def release(self, handle: str) -> None:
        """Free a prepared request, whether it is held already or still being computed."""
        if self.holds(handle):
            self._forget(self._requests[handle])

    def holds(self, handle: str) -> bool:
        """Whether `submit` could continue this prefill."""
        return handle in self._requests and handle not in self._generations

    def knows(self, id: str) -> bool:
        """Whether a live request has this id, as a submit or as a prefill."""
        return id in self._requests or id in self._by_submit

    def expire(self) -> list[Event]:
        """End what is past its deadline, release what was held too long."""
        late = []
        for request in self.scheduler.expired():
            generation = self._generations.get(request.id)
            if generation is None:
                self._forget(request)
            else:
                generation.end(FinishReason.DEADLINE)
                late.append(generation)
        return self._events_of(late)

    def step(self, pulse: Pulse) -> list[Event]:
        """Compute one step; returns what the requests in it get to see. pulse: is told whom it is for, and for how
        long.

            depth 0   launch N     masks N   draw N                  collect N
            depth 1   (under way)  masks N   draw N   launch N + 1   collect N

        With depth 1, what the host does with the tokens of a step lies beside the forward pass of the next one. That
        one takes its tokens from where they were drawn, so it can be launched before the host has seen them. A draft
        follows the newest token, so a step with drafts is never launched ahead.
        """
        flight, self._flight = self._flight, None
        if flight is not None:
            pulse.beat(flight.ids, self.cost_model.seconds(flight.cost))
            return self._finish(flight, pulse)
        failed_drafts = self._draft()
        began = time.perf_counter()
        flight = self._launch(self._scheduled(self.scheduler.schedule), pulse)
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
        self.counters.bookkeeping_s += filled - began
        if self._runner.runs_beside:
            self.counters.launch_s += time.perf_counter() - computed
        else:
            self.counters.sample_s += time.perf_counter() - computed
        if self._may_run_ahead(draws):
            awaited = draws.awaited()
            plan = self._scheduled(lambda: self.scheduler.schedule_ahead(awaited))
            self._flight = self._launch(plan, pulse, draws.tokens)
        return self._collect(flight, output)

    def _keep_flight(self) -> None:
        """Another model's drafts are about to be computed between the launch of a step and its draws."""
        if self._flight is not None and self._runner.reuses_outputs:
            self._flight.forward.keep()

    def _may_run_ahead(self, draws: StepDraws) -> bool:
        if not self._runs_ahead or draws.has_tails or len(draws.generations) != self.scheduler.n_running:
            return False
        return self.speculator is None or self.speculator.may_run_ahead()

    def _draft(self) -> list[Event]:
        """Let the requests that yield a token in the coming step have drafts; returns the end of those that a grammar's
        backend failed for."""
        if self.speculator is None:
            return []
        streams = [
            generation
            for request in self.scheduler.streams()
            if (generation := self._generations.get(request.id)) is not None and generation.output
        ]
        if not streams:
            return []
        faults = self.speculator.draft(streams)
        return [self._fail(self._generations[request_id], fault) for request_id, fault in faults.items()]

    def stats(self) -> dict[str, Any]:
        """The counters, and under names ending in `_now` what is true at this moment."""
        pool = self.scheduler.pool
        return self.counters.snapshot() | {
            "running_now": self.scheduler.n_running,
            "waiting_now": self.scheduler.n_waiting,
            "held_now": self.scheduler.n_held,
            "waiting_tokens_now": self.scheduler.waiting_tokens,
            "queue_s_now": self.scheduler.wait_s(self.scheduler.waiting_tokens),
            "kv_blocks_used_now": pool.n_used,
            "kv_blocks_total": pool.n_blocks,
            "block_evictions": pool.evictions,
        }

    def close(self) -> None:
        """End the thread of the forward passes."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _scheduled(self, schedule: Callable[[], StepPlan | None]) -> StepPlan | None:
        began = time.perf_counter()
        plan = schedule()
        self.counters.schedule_s += time.perf_counter() - began
        return plan

    def _launch(self, plan: StepPlan | None, pulse: Pulse, drawn: torch.Tensor | None = None) -> Flight | None:
        """Begin a step. drawn: what the one before drew, where the plan refers to it."""
        if plan is None:
            return None
        cost = self.cost_model.step(plan.rows)
        ids = tuple(self._client_id(row.request_id) for row in plan.rows)
        pulse.beat(ids, self.cost_model.seconds(cost))
        draws = StepDraws(plan, self._requests, self._generations, self._kept, self._sampler, self._verification)
        gpu = self._runner.device if self._runner.runs_beside else None
        forward = Forward(lambda: self._runner.run(plan, drawn), self._thread, gpu=gpu)
        return Flight(plan, ids, cost, draws, forward)

    def _collect(self, flight: Flight, output: RunnerOutput) -> list[Event]:
        """End a step: its tokens are accepted and committed, its requests' clients told."""
        draws, counters = flight.draws, self.counters
        began = time.perf_counter()
        draws.read()
        read = time.perf_counter()
        draws.accept()
        result = StepResult(flight.plan.step_id)
        mask_s = 0.0
        for generation in draws.generations:
            if self.speculator is not None:
                self.speculator.learn(generation)
            self._force(generation, draws.faults)
            tokens = tuple(generation.uncommitted())
            result.accepted[generation.request.id] = Accepted(tokens, generation.n_tail, generation.path)
            mask_s += generation.note_mask_s()
        if settled := self._verified(flight.plan, result):
            self._runner.settle(settled)
        self.scheduler.commit(result)
        if output.hidden is not None:
            self._keep_hidden(flight.plan, output.hidden)
        self.cost_model.observe(flight.cost, flight.forward.seconds)
        events: list[Event] = [self._prepared(row, logits, output) for row, logits in draws.prepared]
        events += [self._fail(self._generations[request_id], fault) for request_id, fault in draws.faults.items()]
        events += self._events_of(draws.generations)
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
            generation = self._generations.get(row.request_id)
            if generation is not None and row.n_logits:
                last = first + (1 + generation.path[-1] if generation.path else 0)
                generation.hidden = hidden[last].clone() if generation.request.remaining == 1 else None
            first += row.n_logits

    @staticmethod
    def _verified(plan: StepPlan, result: StepResult) -> list[tuple[Row, tuple[int, ...]]]:
        """The rows of a step that had a tail, with what of it was verified."""
        nothing = Accepted(())
        return [(row, result.accepted.get(row.request_id, nothing).path) for row in plan.rows if row.n_logits > 1]

    def _request(self, request_id: str, tokens: list[int], salt: str) -> Request:
        self._check_tokens(tokens, "the prompt")
        return Request(request_id, list(tokens), root_key=self.root_key(salt), salt=salt)

    def _check_tokens(self, tokens: Sequence[int], where: str) -> None:
        vocab_size = self._runner.config.vocab_size
        strange = next((token for token in tokens if not 0 <= token < vocab_size), None)
        if strange is not None:
            message = f"token id {strange} of {where} is not in the vocabulary: use 0 to {vocab_size - 1}"
            raise RequestRefused("bad_token", message)

    def root_key(self, salt: str) -> bytes:
        """The key above all blocks of a tenant: see blocks.root_key."""
        return root_key(
            salt=salt,
            fingerprint=self.info.fingerprint,
            kv_format=f"{self.info.dtype} {self.info.kv_dtype}",
            position_scheme=self._runner.config.position_scheme(self.info.max_model_len),
        )

    def _check_params(self, params: SamplingParams) -> None:
        try:
            check_token_ids(params, self._runner.config.vocab_size)
        except ValueError as error:
            raise RequestRefused("bad_token", str(error)) from error

    def _continued(self, command: Submit, request: Request) -> Generation | None:
        """The answer that was begun with the request's prefill, if that is what is asked for."""
        if not command.continues:
            self._openings.drop(request.id)
            return None
        generation = self._openings.take(request.id)
        if generation is None:
            raise RequestRefused("unknown_handle", f"no answer was begun with {command.handle!r}: submit the prompt")
        generation.id, generation.params, generation.prediction = command.id, command.params, command.prediction
        self._generations[request.id] = self._by_submit[command.id] = generation
        self.counters.tokens_generated += len(generation.output)
        if generation.output:
            self._kept.pop(request.id, None)
        return generation

    def _begin(self, command: Submit, request: Request, matcher: TokenMatcher | None) -> Generation:
        """Set up what the client will see; tokens that the grammar forces at the very start are taken at once."""
        generation = self._generation(command.id, request, command.params, matcher)
        generation.prediction = command.prediction
        self._generations[request.id] = self._by_submit[command.id] = generation
        faults: dict[str, GrammarFault] = {}
        self._force(generation, faults)
        for fault in faults.values():
            raise fault
        self.counters.mask_s += generation.note_mask_s()
        return generation

    def _generation(
        self, id: str, request: Request, params: SamplingParams, matcher: TokenMatcher | None = None
    ) -> Generation:
        vocab_size, slow_s = self._runner.config.vocab_size, self._options.slow_mask_s
        return Generation(
            id,
            request,
            params,
            seed=random.getrandbits(63) if params.seed is None else params.seed,
            decoder=IncrementalDecoder(self._tokenizer),
            end_ids=self.end_ids,
            window=self.scheduler.window,
            matcher=None if matcher is None else GuardedMatcher(matcher, self.end_ids, vocab_size, slow_s),
            clock=self._clock,
        )

    def _force(self, generation: Generation, faults: dict[str, GrammarFault]) -> None:
        """Commit what the grammar leaves no choice about.

        Sampling could not have chosen otherwise, so the output is what it would have been; only the forward passes
        between those tokens are saved, and their keys and values are computed as one chunk.
        """
        request_id, matcher = generation.request.id, generation.matcher
        if matcher is None or not self._options.forced_tokens or request_id in faults:
            return
        try:
            while generation.reason is None and generation.n_left > 0 and (token := matcher.only_token()) is not None:
                generation.accept_forced(token)
                self.counters.tokens_forced += 1
        except GrammarFault as fault:
            faults[request_id] = fault

    def _prepared(self, row: Row, logits: torch.Tensor, output: RunnerOutput) -> Prepared:
        request = self._requests[row.request_id]
        if request.logits_kept:
            self._kept[request.id] = logits
        self.scheduler.set_deadline(request, self._clock() + self._options.max_hold_s)
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
            first=self._openings.draw(request.id, logits),
        )

    def _events_of(self, generations: list[Generation]) -> list[Event]:
        """What is new for the clients of these; those that are over are forgotten."""
        events: list[Event] = []
        for generation in generations:
            if generation.id not in self._by_submit:
                continue  # it failed in this step
            if delta := generation.take_delta():
                self.counters.tokens_generated += len(delta.token_ids)
                events.append(delta)
            if generation.reason is None:
                continue
            try:
                events.append(generation.finished())
                self.counters.finished[generation.reason.value] += 1
                self._forget(generation.request)
            except GrammarFault as fault:
                events.append(self._fail(generation, fault))
        return events

    def _fail(self, generation: Generation, fault: EngineError) -> Failed:
        generation.end(FinishReason.ERROR)  # a step that runs ahead is not to ask its matcher again
        self.counters.finished[FinishReason.ERROR.value] += 1
        self._forget(generation.request)
        return failed(generation.id, fault)

    def _forget(self, request: Request) -> None:
        self.scheduler.finish(request)
        del self._requests[request.id]
        self._kept.pop(request.id, None)
        self._openings.drop(request.id)
        generation = self._generations.pop(request.id, None)
        if generation is not None:
            del self._by_submit[generation.id]
            if self.speculator is not None:
                self.speculator.forget(generation)

    def _client_id(self, request_id: str) -> str:
        """What the client calls a request: a generation that continues a prefill has an id of its own."""
        generation = self._generations.get(request_id)
        return request_id if generation is None else generation.id
