"""One model in the engine: schedule, run, mask, sample, commit, and what its requests get to see of it."""

import random
import time
from collections.abc import Callable
from typing import Any

import torch

from engine.blocks import BlockPool, root_key
from engine.chunk_limit import Shape
from engine.config import SchedulerConfig
from engine.constrain import GrammarFault, GuardedMatcher, TokenMatcher
from engine.cost_model import CostModel
from engine.detokenizer import IncrementalDecoder
from engine.draws import StepDraws
from engine.generation import Generation
from engine.heartbeat import Pulse
from engine.messages import Event, Failed, ModelInfo, Prepare, Prepared, Submit, failed
from engine.pair_config import InstanceOptions
from engine.plan import Accepted, Row, StepResult
from engine.request import EngineError, FinishReason, Request, RequestRefused
from engine.runner import ModelRunner, RunnerOutput
from engine.sampler import check_token_ids
from engine.scheduler import Scheduler
from engine.speculation.forced import ForcedTokens
from engine.speculation.proposer import DraftTree, Proposer
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
        proposer: Proposer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """proposer: where drafts come from (None: nowhere)."""
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
        self.cost_model = cost_model
        self._proposer = proposer
        self._matchers: dict[str, GuardedMatcher] = {}  # by request id
        self._forced = ForcedTokens(self._matchers)
        self._requests: dict[str, Request] = {}
        self._generations: dict[str, Generation] = {}  # by request id
        self._by_submit: dict[str, Generation] = {}
        self._kept: dict[str, torch.Tensor] = {}  # by request id: the logits [vocab] of a prepared prompt's last token

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something."""
        return self.scheduler.has_work

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
        request = self._request(command.id, command.tokens, command.salt)
        request.holds = True
        request.wants_state = bool(self._runner.state_layers)
        self.scheduler.add(request)
        self._requests[request.id] = request

    def submit(self, command: Submit, matcher: TokenMatcher | None) -> list[Event]:
        """Queue a generation, or continue a held prefill. Raises RequestRefused, GrammarFault."""
        try:
            check_token_ids(command.params, self._runner.config.vocab_size)
        except ValueError as error:
            raise RequestRefused("bad_token", str(error)) from error
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
            generation = self._begin(command, request, matcher)
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
        long."""
        began = time.perf_counter()
        plan = self.scheduler.schedule()
        if plan is None:
            return []
        cost = self.cost_model.step(plan.rows)
        pulse.beat((self._client_id(row.request_id) for row in plan.rows), self.cost_model.seconds(cost))
        scheduled = time.perf_counter()
        output = self._runner.run(plan)
        ran = time.perf_counter()
        draws = StepDraws()
        draws.collect(plan, output.logits, self._requests, self._generations, self._kept)
        masked = time.perf_counter()
        draws.sample()
        result = StepResult(plan.step_id)
        for generation in draws.generations:
            self.counters.tokens_drafted += len(generation.request.tail)
            self.counters.tokens_accepted += generation.n_tail
            self._force(generation, draws.faults)
            result.accepted[generation.request.id] = Accepted(tuple(generation.uncommitted()), generation.n_tail)
        self.scheduler.commit(result)
        self.counters.schedule_s += scheduled - began
        self.counters.forward_s += ran - scheduled
        self.counters.mask_s += masked - ran
        self.counters.sample_s += time.perf_counter() - masked
        self.cost_model.observe(cost, ran - scheduled)
        events: list[Event] = [self._prepared(row, logits, output) for row, logits in draws.prepared]
        events += [self._fail(self._generations[request_id], fault) for request_id, fault in draws.faults.items()]
        return events + self._events_of(draws.generations)

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

    def _request(self, request_id: str, tokens: list[int], salt: str) -> Request:
        vocab_size = self._runner.config.vocab_size
        strange = next((token for token in tokens if not 0 <= token < vocab_size), None)
        if strange is not None:
            raise RequestRefused("bad_token", f"token id {strange} is not in the vocabulary: use 0 to {vocab_size - 1}")
        root = root_key(
            salt=salt,
            fingerprint=self.info.fingerprint,
            kv_format=self.info.dtype,
            position_scheme=self._runner.config.position_scheme(self.info.max_model_len),
        )
        return Request(request_id, list(tokens), root_key=root)

    def _begin(self, command: Submit, request: Request, matcher: TokenMatcher | None) -> Generation:
        """Set up what the client will see; tokens that the grammar forces at the very start are taken at once."""
        vocab_size = self._runner.config.vocab_size
        guarded = None if matcher is None else GuardedMatcher(matcher, self.end_ids, vocab_size)
        generation = Generation(
            command.id,
            request,
            command.params,
            seed=random.getrandbits(63) if command.params.seed is None else command.params.seed,
            decoder=IncrementalDecoder(self._tokenizer),
            end_ids=self.end_ids,
            window=self.scheduler.window,
            matcher=guarded,
            clock=self._clock,
        )
        if guarded is not None:
            self._matchers[request.id] = guarded
        self._generations[request.id] = self._by_submit[command.id] = generation
        faults: dict[str, GrammarFault] = {}
        self._force(generation, faults)
        for fault in faults.values():
            raise fault
        return generation

    def _force(self, generation: Generation, faults: dict[str, GrammarFault]) -> None:
        """Commit what the grammar leaves no choice about."""
        request_id = generation.request.id
        if not self._options.forced_tokens or generation.matcher is None or request_id in faults:
            return
        try:
            for token in self._forced.propose(generation.request, generation.n_left).tokens:
                if generation.reason is None:
                    generation.accept_forced(token)
                    self.counters.tokens_forced += 1
        except GrammarFault as fault:
            faults[request_id] = fault

    def _propose(self, generation: Generation) -> None:
        """Give a request that waits for its next token a draft of what follows."""
        if self._proposer is None or generation.request.remaining != 1:
            return
        budget = min(self._options.max_draft, generation.n_left - 1)
        draft = self._proposer.propose(generation.request, budget) if budget > 0 else DraftTree()
        if not draft.is_chain:
            raise ValueError("the proposer drafted a tree: only chains can be verified")
        generation.request.tail = list(draft.tokens)

    def _prepared(self, row: Row, logits: torch.Tensor, output: RunnerOutput) -> Prepared:
        request = self._requests[row.request_id]
        if request.logits_kept:
            self._kept[request.id] = logits.clone()  # a view would keep the whole step's logits alive
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
        )

    def _events_of(self, generations: list[Generation]) -> list[Event]:
        """What is new for the clients of these; those that are over are forgotten, the others may get a draft."""
        events: list[Event] = []
        for generation in generations:
            if generation.id not in self._by_submit:
                continue  # it failed in this step
            if delta := generation.take_delta():
                self.counters.tokens_generated += len(delta.token_ids)
                events.append(delta)
            if generation.reason is None:
                self._propose(generation)
                continue
            try:
                events.append(generation.finished())
                self.counters.finished[generation.reason.value] += 1
                self._forget(generation.request)
            except GrammarFault as fault:
                events.append(self._fail(generation, fault))
        return events

    def _fail(self, generation: Generation, fault: EngineError) -> Failed:
        self.counters.finished[FinishReason.ERROR.value] += 1
        self._forget(generation.request)
        return failed(generation.id, fault)

    def _forget(self, request: Request) -> None:
        self.scheduler.finish(request)
        del self._requests[request.id]
        self._kept.pop(request.id, None)
        self._matchers.pop(request.id, None)
        generation = self._generations.pop(request.id, None)
        if generation is not None:
            del self._by_submit[generation.id]

    def _client_id(self, request_id: str) -> str:
        """What the client calls a request: a generation that continues a prefill has an id of its own."""
        generation = self._generations.get(request_id)
        return request_id if generation is None else generation.id
