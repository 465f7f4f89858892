"""A job's answers on one model: every choice submitted, merged into one stream of events, and always given back."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from engine.client import EngineClient
from engine.messages import Delta, Finished
from engine.request import SamplingParams
from gateway.openai.job import Job
from gateway.routing.load import Load, Ticket


@dataclass(frozen=True, slots=True)
class Piece:
    """An event of the choice `index`."""

    index: int
    event: Delta | Finished


class Generation:
    """`start`, then `pieces` to the end; `close` at any time frees what the engine still holds for it."""

    def __init__(
        self,
        engine: EngineClient,
        job: Job,
        alias: str,
        load: Load,
        *,
        handle: str | None = None,
        ticket: Ticket | None = None,
        warm_tokens: int = 0,
    ) -> None:
        """handle: a held prefill of the prompt, which the first choice continues; it is this object's from now on.

        ticket: one that was opened for that prefill; None: it is opened when the prompt is submitted, of which
        warm_tokens are expected to be cached.
        """
        self._engine, self._job, self._alias, self._load = engine, job, alias, load
        self._handle, self._ticket, self._warm_tokens = handle, ticket, warm_tokens
        self._pumps: list[asyncio.Task[None]] = []
        self._queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        self._continues = handle is not None
        self._running = self._unfinished = 0

    def start(self, params: Sequence[SamplingParams], prediction: Sequence[int] = ()) -> None:
        """Submit a choice for each of `params`.

        prediction: tokens of this model that the answer is expected to have: the client's prediction, or what the model
        before it answered.
        """
        if self._ticket is None:
            n_prompt = len(self._job.prompts[self._alias])
            self._ticket = self._load.submitted(
                self._alias, n_prompt, cached_tokens=self._warm_tokens, rows=len(params)
            )
        self._running = self._unfinished = len(params)
        for index, each in enumerate(params):
            self._pumps.append(asyncio.create_task(self._pump(index, each, prediction)))

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The events of all choices as they come, until each has finished; what was taken before is not repeated.

        Raises what the engine raises.
        """
        while self._unfinished:
            piece = await self._queue.get()
            if isinstance(piece, BaseException):
                raise piece
            self._unfinished -= isinstance(piece.event, Finished)
            yield piece

    def close(self) -> list[Piece]:
        """Cancel what still runs and release what is held; returns what nobody has taken. Again it does nothing."""
        for pump in self._pumps:
            pump.cancel()
        handle, self._handle = self._handle, None
        if handle is not None:
            self._engine.release(handle)
        if self._ticket is not None:
            self._load.finished(self._ticket)
        left = list[Piece]()
        while not self._queue.empty():
            piece = self._queue.get_nowait()
            if isinstance(piece, Piece):
                left.append(piece)
        return left

    async def _pump(self, index: int, params: SamplingParams, prediction: Sequence[int]) -> None:
        """Carry one choice's events to the queue; the first choice continues the prefill if there is one."""
        handle = None
        if index == 0:
            handle, self._handle = self._handle, None
        try:
            async for event in self._engine.submit(
                self._alias,
                params,
                tokens=self._job.prompts[self._alias] if handle is None else None,
                handle=handle,
                constraint=self._job.constraint(self._alias),
                priority=self._job.priority,
                deadline_s=max(self._job.remaining_s(), 0.001),
                salt=self._job.salt,
                prediction=prediction,
            ):
                self._note(event)
                self._queue.put_nowait(Piece(index, event))
        except Exception as exc:
            self._queue.put_nowait(exc)

    def _note(self, event: Delta | Finished) -> None:
        """Tell the load of the first token and of the last end; what a prefill found in the cache was told before."""
        if self._ticket is None:
            return
        if isinstance(event, Delta):
            self._load.first_token(self._ticket)
            return
        self._running -= 1
        if not self._running:
            self._load.finished(self._ticket, cached_tokens=None if self._continues else event.timeline.cached_tokens)
