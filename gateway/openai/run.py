"""One job on the engine: compiled, routed, submitted, perhaps to a second model, and always given back."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.client import EngineClient
from engine.messages import Compiled, Delta
from gateway.openai.generation import Generation, Piece
from gateway.openai.job import Job
from gateway.routing.cascade import Chance, second_chance
from gateway.routing.catalogue import Catalogue, ServedModel
from gateway.routing.load import Ticket
from gateway.routing.outcome import Outcome
from gateway.routing.router import Route, Router
from gateway.settings import Settings
from grammars.errors import CompileTimeout, ConstraintRefused
from router_model.options import Action

__all__ = ["Attempt", "Compiling", "Piece", "Run"]


@dataclass(frozen=True, slots=True)
class Compiling:
    """A constraint that was compiled for one model. began_s, ended_s: `time.monotonic()`; compiled: None is failed."""

    alias: str
    began_s: float
    ended_s: float
    compiled: Compiled | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One model's try at the answers, and what came of it. began_s: `time.monotonic()`."""

    model: ServedModel
    generation: Generation
    outcome: Outcome
    began_s: float

    @property
    def generated_s(self) -> tuple[float, float]:
        """From when it began until now or its end."""
        return self.began_s, self.outcome.finished_s or time.monotonic()

    def discard(self) -> None:
        """End it. What it had computed by then counts, seen or not."""
        for piece in self.generation.close():
            if isinstance(piece.event, Delta):
                self.outcome.saw_tokens(piece.index, len(piece.event.token_ids))
            else:
                self.outcome.saw_end(piece.index, piece.event)
        self.outcome.finished_s = self.outcome.finished_s or time.monotonic()

    def abandon(self) -> None:
        """End it because nobody listens any more. It counts likewise, but what nobody took did not end an answer."""
        produced = self.outcome.produced
        for index, event in ((piece.index, piece.event) for piece in self.generation.close()):
            is_end = not isinstance(event, Delta)
            produced[index] = len(event.token_ids) + (0 if is_end else produced.get(index, 0))


class Run:
    """`start`, then the events of `attempt`; `close` at any time frees what the engine still holds for it.

    The small model's answer may get a second `chance`: then `try_large`, and `take_over` once that attempt is under
    way; `fall_back` where it fails after all. attempts, compilings: all of them, in the order in which they began.
    routed_s: (begin, end) on `time.monotonic()`, for the trace; None where it did not happen.
    """

    def __init__(
        self, engine: EngineClient, router: Router, catalogue: Catalogue, job: Job, settings: Settings
    ) -> None:
        self._engine, self._router, self._catalogue, self._job = engine, router, catalogue, job
        self._load, self._settings = router.load, settings
        self._route: Route | None = None
        self._handle: str | None = None
        self._sent: Attempt | None = None
        self.chance: Chance | None = None
        self.attempts: list[Attempt] = []
        self.compilings: list[Compiling] = []
        self.routed_s: tuple[float, float] | None = None

    @property
    def attempt(self) -> Attempt:
        """The one whose answers are sent, as things stand; known once `start` is done."""
        if self._sent is None:
            raise RuntimeError("the run has not been started")
        return self._sent

    @property
    def route(self) -> Route | None:
        """The decision with what it was made from; None before there is one."""
        return self._route

    @property
    def compiled(self) -> Compiled | None:
        """The constraint, as it was compiled last; None without one."""
        return next((one.compiled for one in reversed(self.compilings) if one.compiled is not None), None)

    @property
    def _compile_s(self) -> float | None:
        """Seconds that compiling took by now, for all models; None without a constraint."""
        seconds = [one.compiled.seconds for one in self.compilings if one.compiled is not None]
        return sum(seconds) if seconds else None

    @property
    def outcome(self) -> Outcome | None:
        """That of `attempt`; None before there is one."""
        return None if self._sent is None else self._sent.outcome

    async def start(self) -> None:
        """Compile and route at the same time, then submit every choice.

        Raises ApiError for a refused constraint, and what the engine raises; `close` must follow in any case.
        """
        job = self._job
        first_guess = job.eligibility.eligible[0]
        await _both(self._compile(first_guess), self._decide())
        if self._route is None:
            raise RuntimeError("routing ended without a decision")
        decision = self._route.decision
        if decision.model != first_guess:
            await self._compile(decision.model)
        if decision.model != "small":
            self._release()
        began_s = self.routed_s[0] if self._handle is not None and self.routed_s is not None else time.monotonic()
        routing = self._settings.routing
        self.chance = second_chance(
            decision,
            self._route.judge,
            job.ask,
            mode=job.ask.cascade or routing.cascade,
            n=job.n,
            in_tool_loop=job.in_tool_loop,
            hold_tokens=routing.hold_tokens if job.request.stream else None,
        )
        outcome = Outcome(
            decision=decision,
            prompt_tokens=len(job.prompts[decision.model]),
            prepared=self._route.prepared,
            backend=None if self.compiled is None else self.compiled.backend,
            compile_s=self._compile_s,
            route_s=None if self.routed_s is None else self.routed_s[1] - self.routed_s[0],
        )
        self._sent = self._attempt(
            decision.model,
            outcome,
            began_s,
            job.predictions.get(decision.model, ()),
            handle=self._handle,
            ticket=self._route.ticket,
        )
        self._handle = None  # the attempt's from now on

    def wait_s(self, alias: str) -> float | None:
        """Predicted seconds until a model's first token, if it were asked now; None: not known."""
        return self._load.ttft_s(alias, len(self._job.prompts[alias]))

    @property
    def shares_vocabulary(self) -> bool:
        """Whether the models' tokens mean the same."""
        return self._engine.shares_vocabulary

    async def try_large(self, prediction: Sequence[int]) -> Attempt:
        """Begin the large model's attempt, while the small one's goes on. prediction: what the small one answered, in
        the large model's tokens; no more of it is used than its window holds.

        Raises ApiError and CompileTimeout where its constraint cannot be made, and what the engine raises.
        """
        first = self.attempt.outcome
        await self._compile("large")
        outcome = Outcome(
            decision=first.decision,
            model="large",
            prompt_tokens=len(self._job.prompts["large"]),
            prepared=first.prepared,
            backend=None if self.compiled is None else self.compiled.backend,
            compile_s=self._compile_s,
            route_s=first.route_s,
        )
        first.others.append(outcome)
        window = self._catalogue["large"].info.max_model_len
        return self._attempt("large", outcome, time.monotonic(), prediction[:window])

    def take_over(self, second: Attempt, reason: str) -> None:
        """From now on the second attempt's answer is the one that is sent; the first one's is discarded."""
        first = self.attempt
        first.discard()
        first.outcome.others.clear()
        second.outcome.others.append(first.outcome)
        second.outcome.escalated, second.outcome.escalate_reason = True, reason
        second.outcome.p_right = first.outcome.p_right
        self._sent = second
        if self._route is not None:
            self._route.on_escalated()

    def fall_back(self, reason: str) -> None:
        """The small model's answer is sent after all: there was no second attempt, or it failed."""
        first = self.attempts[0]
        for second in self.attempts[1:]:
            second.discard()
            second.outcome.others.clear()
        first.outcome.others[:] = [second.outcome for second in self.attempts[1:]]
        first.outcome.escalate_reason = reason
        self._sent = first

    def close(self) -> None:
        """Cancel what still runs and release what is held. Calling it again does nothing."""
        for attempt in self.attempts:
            attempt.abandon()
        self._release()
        if self._route is not None and self._route.ticket is not None:
            self._load.finished(self._route.ticket)

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._engine.release(handle)

    def _attempt(
        self,
        alias: str,
        outcome: Outcome,
        began_s: float,
        prediction: Sequence[int],
        *,
        handle: str | None = None,
        ticket: Ticket | None = None,
    ) -> Attempt:
        """An attempt that has begun. handle, ticket: a held prefill that it continues, and its place in the load."""
        model = self._catalogue[alias]
        params = self._job.params(model)
        if self.chance is not None and self.chance.reads_logprobs and not self.attempts:
            params = [
                each if each.logprobs is not None else msgspec.structs.replace(each, logprobs=0) for each in params
            ]
        circumstances = outcome.decision.circumstances
        generation = Generation(
            self._engine,
            self._job,
            alias,
            self._load,
            handle=handle,
            ticket=ticket,
            warm_tokens=0 if circumstances is None else circumstances.offer(Action(alias)).warm_tokens,
        )
        attempt = Attempt(model, generation, outcome, began_s)
        self.attempts.append(attempt)
        generation.start(params, prediction)
        return attempt

    async def _compile(self, alias: str) -> None:
        constraint = self._job.constraint(alias)
        if constraint is None:
            return
        compile_s = self._settings.limits.compile_s
        await self._engine.wait_until_up()
        began, compiled = time.monotonic(), None
        try:
            async with asyncio.timeout(compile_s):
                compiled = await self._engine.compile(alias, constraint)
        except ConstraintRefused as refusal:
            raise self._job.asked.refusal(refusal) from refusal
        except CompileTimeout:
            raise
        except TimeoutError:
            raise CompileTimeout(f"more than {compile_s:g} seconds") from None
        finally:
            self.compilings.append(Compiling(alias, began, time.monotonic(), compiled))

    async def _decide(self) -> None:
        began = time.monotonic()
        self._route = await self._router.route(self._job.question())
        self._handle = None if self._route.prepared is None else self._route.prepared.handle
        self.routed_s = (began, time.monotonic())


async def _both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Run two coroutines at once; when one fails the other is cancelled, and has ended, before that is raised."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
