"""One job on the engine: compiled, routed, submitted, merged into one stream of events, and always given back."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from engine.client import EngineClient
from engine.messages import Compiled, Delta, Finished
from engine.request import SamplingParams
from gateway.openai.job import Job
from gateway.routing.catalogue import Catalogue, ServedModel
from gateway.routing.outcome import Outcome
from gateway.routing.router import Question, Route, Router
from grammars.errors import CompileTimeout, ConstraintRefused


@dataclass(frozen=True, slots=True)
class Piece:
    """An event of the choice `index`."""

    index: int
    event: Delta | Finished


class Run:
    """`start`, then `pieces` to the end; `close` at any time frees what the engine still holds for it.

    compiled_s, routed_s, generated_s: (begin, end) on `time.monotonic()`, for the trace; None for what did not happen.
    """

    def __init__(
        self, engine: EngineClient, router: Router, catalogue: Catalogue, job: Job, *, compile_s: float
    ) -> None:
        """compile_s: the longest that compiling the constraint may take."""
        self._engine, self._router, self._catalogue, self._job = engine, router, catalogue, job
        self._compile_s = compile_s
        self._route: Route | None = None
        self._handle: str | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        self._began_s: float | None = None
        self.compiled: Compiled | None = None
        self.compiled_s: tuple[float, float] | None = None
        self.routed_s: tuple[float, float] | None = None
        self.outcome: Outcome | None = None

    @property
    def model(self) -> ServedModel:
        """The model that answers; known once `start` is done."""
        if self._route is None:
            raise RuntimeError("the run has not been started")
        return self._catalogue[self._route.decision.model]

    @property
    def generated_s(self) -> tuple[float, float] | None:
        """From submission, or from the router's prefill where the answer continues it, until now or the end."""
        if self._began_s is None or self.outcome is None:
            return None
        began = self.routed_s[0] if self.routed_s and self.outcome.continues_prefill else self._began_s
        return began, self.outcome.finished_s or time.monotonic()

    async def start(self) -> None:
        """Compile and route at the same time, then submit every choice.

        Raises ApiError for a refused constraint, and what the engine raises; `close` must follow in any case.
        """
        first_guess = self._job.eligibility.eligible[0]
        await _both(self._compile(first_guess), self._decide())
        if self._route is None:
            raise RuntimeError("routing ended without a decision")
        decision = self._route.decision
        if decision.model != first_guess:
            await self._compile(decision.model)
        self.outcome = Outcome(
            decision=decision,
            prompt_tokens=len(self._job.prompts[decision.model]),
            prepared=self._route.prepared,
            backend=None if self.compiled is None else self.compiled.backend,
            compile_s=None if self.compiled is None else self.compiled.seconds,
            route_s=None if self.routed_s is None else self.routed_s[1] - self.routed_s[0],
        )
        if self._handle is not None and decision.model != "small":
            self._release()
        self._began_s = time.monotonic()
        prediction = self._job.predictions.get(decision.model, ())
        for index, params in enumerate(self._job.params(self.model)):
            self._pumps.append(asyncio.create_task(self._pump(index, params, prediction)))

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The events of all choices as they come, until each has finished. Raises what the engine raises."""
        unfinished = len(self._pumps)
        while unfinished:
            piece = await self._queue.get()
            if isinstance(piece, BaseException):
                raise piece
            unfinished -= isinstance(piece.event, Finished)
            yield piece

    def close(self) -> None:
        """Cancel what still runs and release what is held. Calling it again does nothing."""
        for pump in self._pumps:
            pump.cancel()
        self._release()

    async def _compile(self, alias: str) -> None:
        constraint = self._job.constraint(alias)
        if constraint is None:
            return
        await self._engine.wait_until_up()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._compile_s):
                self.compiled = await self._engine.compile(alias, constraint)
        except ConstraintRefused as refusal:
            raise self._job.asked.refusal(refusal) from refusal
        except CompileTimeout:
            raise
        except TimeoutError:
            raise CompileTimeout(f"more than {self._compile_s:g} seconds") from None
        finally:
            self.compiled_s = (began, time.monotonic())

    async def _decide(self) -> None:
        job, began = self._job, time.monotonic()
        alias = job.eligibility.eligible[0]
        question = Question(
            wanted=job.wanted,
            eligibility=job.eligibility,
            text=job.text(),
            facts=job.facts(alias),
            prompt=job.prompts[alias],
            salt=job.salt,
            explore=job.explore,
        )
        self._route = await self._router.route(question)
        self._handle = None if self._route.prepared is None else self._route.prepared.handle
        self.routed_s = (began, time.monotonic())

    async def _pump(self, index: int, params: SamplingParams, prediction: Sequence[int] = ()) -> None:
        """Carry one choice's events to the queue; the first choice continues the router's prefill if there is one.

        prediction: tokens of this model that the answer is expected to have, the client's prediction. A cascade would
        hand over here what the model before it answered; there is none yet.
        """
        handle, alias = None, self.model.alias
        if index == 0:
            handle, self._handle = self._handle, None
        try:
            async for event in self._engine.submit(
                alias,
                params,
                tokens=self._job.prompts[alias] if handle is None else None,
                handle=handle,
                constraint=self._job.constraint(alias),
                priority=self._job.priority,
                deadline_s=max(self._job.remaining_s(), 0.001),
                salt=self._job.salt,
                prediction=prediction,
            ):
                self._queue.put_nowait(Piece(index, event))
        except Exception as exc:
            self._queue.put_nowait(exc)

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._engine.release(handle)


async def _both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Run two coroutines at once; when one fails the other is cancelled, and has ended, before that is raised."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
