"""One model in the engine: what it is asked to do, with its live requests and the steps that serve them."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from engine.blocks import BlockPool, root_key
from engine.chunk_limit import Shape
from engine.config import SchedulerConfig
from engine.cost_model import CostModel
from engine.detokenizer import IncrementalDecoder
from engine.generation import Generation
from engine.guarded_matcher import GrammarFault, GuardedMatcher, TokenMatcher
from engine.heartbeat import Pulse
from engine.live_requests import LiveRequests
from engine.messages import Event, ModelInfo, Prepare, Submit
from engine.openings import Openings
from engine.pair_config import InstanceOptions
from engine.request import EngineError, FinishReason, Request, RequestRefused, SamplingParams
from engine.runner import ModelRunner
from engine.sampler import Sampler
from engine.sampling_row import check_token_ids
from engine.scheduler import Scheduler
from engine.speculation.config import Verification
from engine.speculation.draft_model import DraftModel
from engine.speculation.speculator import Speculator
from engine.stats import Counters
from engine.step_loop import StepLoop
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
        self.cost_model, self._thread = cost_model, thread
        self._live = LiveRequests(
            self.scheduler,
            Openings(self._sampler),
            self.counters,
            forces=self._options.forced_tokens,
            on_end=self._forget_drafts,
        )
        self._steps = StepLoop(
            runner,
            self.scheduler,
            self._sampler,
            self._live,
            self.counters,
            cost_model=cost_model,
            options=self._options,
            verification=verification,
            thread=thread,
            clock=clock,
        )

    @property
    def speculator(self) -> Speculator | None:
        """Where drafts come from; set once, before the first request, by whoever loads the models: a draft model is
        another instance."""
        return self._steps.speculator

    @speculator.setter
    def speculator(self, speculator: Speculator | None) -> None:
        self._steps.speculator = speculator

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
            before=self._steps.keep_flight,
            thread=thread,
            wants_distributions=wants_distributions,
        )

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something, or end one that is under way."""
        return self._steps.flight is not None or self.scheduler.has_work

    @property
    def busy_s(self) -> float:
        """Seconds that all steps so far have taken, those of forward passes under other models' steps included."""
        counted = self.counters
        parts = (counted.schedule_s, counted.forward_s, counted.mask_s, counted.sample_s, counted.bookkeeping_s)
        return sum(parts) + counted.draft_s

    @property
    def n_live(self) -> int:
        """Submitted requests that have not ended."""
        return len(self._live.by_submit)

    def earliest_deadline(self) -> float | None:
        """When the next request must be ended or released, on the instance's clock."""
        return self.scheduler.earliest_deadline()

    def slack_s(self) -> float | None:
        """Seconds that the request whose deadline comes next could still lose: those until then, less what its known
        tokens and, where it says how many more it wants, those will take by prediction."""
        request = self.scheduler.most_pressing()
        if request is None or request.deadline_s is None:
            return None
        wanted, generation = 0, self._live.generations.get(request.id)
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
        self._live.requests[request.id] = request
        if command.params is not None:
            self._live.openings.add(self._generation(command.id, request, command.params))

    def submit(self, command: Submit, matcher: TokenMatcher | None) -> list[Event]:
        """Queue a generation, or continue a held prefill. Raises RequestRefused, GrammarFault."""
        self._check_params(command.params)
        self._check_tokens(command.prediction, "the prediction")
        deadline_s = None if command.deadline_s is None else self._clock() + command.deadline_s
        if command.handle is not None:
            if not self._live.holds(command.handle):
                message = f"{self.info.name} holds no prefill {command.handle!r}: submit the prompt's tokens"
                raise RequestRefused("unknown_handle", message)
            request = self._live.requests[command.handle]
            self.scheduler.set_deadline(request, deadline_s)
        else:
            request = self._request(command.id, command.tokens or [], command.salt)
            request.priority, request.deadline_s = command.priority, deadline_s
            self.scheduler.add(request)
            self._live.requests[request.id] = request
        self.counters.submitted += 1
        try:
            generation = self._continued(command, request) or self._begin(command, request, matcher)
            self.scheduler.extend(request, generation.output)
        except EngineError:
            self._live.forget(request)
            raise
        if command.handle is not None:
            self.scheduler.resume(request, priority=command.priority)
        # Tokens forced at the very start go out with the first sampled one, unless they are the whole answer already.
        return [] if generation.reason is None else self._live.events_of([generation])

    def cancel(self, submit_id: str) -> list[Event]:
        """End a submitted request now; unknown ids are ignored."""
        generation = self._live.by_submit.get(submit_id)
        if generation is None:
            return []
        generation.end(FinishReason.CANCELLED)
        return self._live.events_of([generation])

    def release(self, handle: str) -> None:
        """Free a prepared request, whether it is held already or still being computed."""
        if self._live.holds(handle):
            self._live.forget(self._live.requests[handle])

    def holds(self, handle: str) -> bool:
        """Whether `submit` could continue this prefill."""
        return self._live.holds(handle)

    def knows(self, id: str) -> bool:
        """Whether a live request has this id, as a submit or as a prefill."""
        return self._live.knows(id)

    def expire(self) -> list[Event]:
        """End what is past its deadline, release what was held too long."""
        late = []
        for request in self.scheduler.expired():
            generation = self._live.generations.get(request.id)
            if generation is None:
                self._live.forget(request)
            else:
                generation.end(FinishReason.DEADLINE)
                late.append(generation)
        return self._live.events_of(late)

    def step(self, pulse: Pulse) -> list[Event]:
        """Compute one step; returns what the requests in it get to see. pulse: is told whom it is for, and for how
        long."""
        return self._steps.step(pulse)

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
            self._live.openings.drop(request.id)
            return None
        generation = self._live.openings.take(request.id)
        if generation is None:
            raise RequestRefused("unknown_handle", f"no answer was begun with {command.handle!r}: submit the prompt")
        generation.id, generation.params, generation.prediction = command.id, command.params, command.prediction
        self._live.begin(generation)
        self.counters.tokens_generated += len(generation.output)
        if generation.output:
            self._live.kept.pop(request.id, None)
        return generation

    def _begin(self, command: Submit, request: Request, matcher: TokenMatcher | None) -> Generation:
        """Set up what the client will see; tokens that the grammar forces at the very start are taken at once."""
        generation = self._generation(command.id, request, command.params, matcher)
        generation.prediction = command.prediction
        self._live.begin(generation)
        faults: dict[str, GrammarFault] = {}
        self._live.force(generation, faults)
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

    def _forget_drafts(self, generation: Generation) -> None:
        if self.speculator is not None:
            self.speculator.forget(generation)
