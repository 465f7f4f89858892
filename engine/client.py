"""The engine as the gateway sees it: asynchronous calls and streams, over a core that may die and come back."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.child import ProcessTransport
from engine.messages import (
    Cancel,
    Command,
    Compile,
    Compiled,
    Delta,
    Event,
    Failed,
    Finished,
    GetStats,
    ModelInfo,
    Prepare,
    Prepared,
    Ready,
    Release,
    Stats,
    Submit,
    as_exception,
)
from engine.pair_config import PairConfig
from engine.poison import Suspects, content_key
from engine.request import EngineDied, EngineError, RequestRefused, SamplingParams
from engine.transport import Listener, LoadFailed, ThreadTransport, Transport
from grammars.constraint import Constraint

__all__ = ["EngineClient", "RestartPolicy"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """first_s, max_s: pause before a restart, doubled with each death that follows within `settled_s` of a start.
    wait_s: how long a new request waits for a restart before it is refused.
    """

    first_s: float = 0.1
    max_s: float = 10.0
    settled_s: float = 30.0
    wait_s: float = 60.0


@dataclass(slots=True)
class _Call:
    """A command in flight, and where its events go. None in the inbox means that the engine died."""

    key: bytes
    inbox: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)


@dataclass(frozen=True, slots=True)
class _Held:
    """What a handle stands for, in case the engine that holds it is no longer there."""

    model: str
    tokens: list[int]
    salt: str
    epoch: int


class EngineClient:
    """Use `in_process` or `in_child`, then `start`; or `async with`. Belongs to one event loop."""

    def __init__(self, transport: Transport, restart: RestartPolicy | None = None) -> None:
        self._transport, self._restart = transport, restart or RestartPolicy()
        self._ids = itertools.count(1)
        self._calls: dict[str, _Call] = {}
        self._held: dict[str, _Held] = {}
        self._suspects = Suspects()
        self._ready: Ready | None = None
        self._up = asyncio.Event()
        self._fatal: str | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._epoch = self._deaths_in_row = 0
        self._started_s = 0.0

    @classmethod
    def in_process(cls, config: PairConfig) -> "EngineClient":
        """The core on a thread of this process: for tests and development."""
        return cls(ThreadTransport(config))

    @classmethod
    def in_child(cls, config: PairConfig, restart: RestartPolicy | None = None) -> "EngineClient":
        """The core in a supervised child process."""
        return cls(ProcessTransport(config), restart)

    async def start(self) -> Ready:
        """Load the models. Raises LoadFailed with what is wrong, or EngineDied."""
        self._ready = await self._transport.open(Listener(self._on_events, self._on_death))
        self._epoch += 1
        self._started_s = time.monotonic()
        self._up.set()
        return self._ready

    @property
    def is_up(self) -> bool:
        """Whether a request would be taken now, without waiting for a restart."""
        return self._up.is_set() and self._fatal is None

    @property
    def restarts(self) -> int:
        """How often the engine was started again."""
        return max(0, self._epoch - 1)

    def info(self) -> list[ModelInfo]:
        """The loaded models. Raises EngineError before `start`."""
        if self._ready is None:
            raise EngineError("the engine was not started: await start() first")
        return self._ready.models

    @property
    def shares_vocabulary(self) -> bool:
        """Whether every token id means the same in all models."""
        return self._ready is not None and self._ready.shares_vocabulary

    async def compile(self, model: str, constraint: Constraint) -> Compiled:
        """Compile ahead of a submit. Raises ConstraintRefused, CompileTimeout, RequestRefused, EngineDied."""
        command = Compile(self._new_id(), model, constraint)
        event = await self._ask(command.id, command, content_key("compile", model, constraint))
        if not isinstance(event, Compiled):
            raise _unexpected(event)
        return event

    async def prepare(self, model: str, tokens: Sequence[int], *, salt: str = "") -> Prepared:
        """Compute a prompt and hold it; pass the handle to `submit` or `release`. Raises RequestRefused, EngineDied.

        Cancelling the call frees what was computed.
        """
        command = Prepare(self._new_id(), model, list(tokens), salt)
        try:
            event = await self._ask(command.id, command, content_key("tokens", model, command.tokens))
        except asyncio.CancelledError:
            self._transport.send(Release(command.id))
            raise
        if not isinstance(event, Prepared):
            raise _unexpected(event)
        self._held[event.handle] = _Held(model, command.tokens, salt, self._epoch)
        return event

    async def submit(
        self,
        model: str,
        params: SamplingParams,
        *,
        tokens: Sequence[int] | None = None,
        handle: str | None = None,
        constraint: Constraint | None = None,
        priority: int = 0,
        deadline_s: float | None = None,
        salt: str = "",
    ) -> AsyncGenerator[Delta | Finished, None]:
        """Generate: deltas, then exactly one Finished, or an exception.

        tokens or handle: a prompt, or a prepared one; a handle whose engine is gone is computed anew, unseen. Closing
        the generator early cancels the request. Raises ConstraintRefused, CompileTimeout, RequestRefused, EngineDied,
        EngineError.
        """
        held = self._held.pop(handle, None) if handle is not None else None
        if handle is not None and held is None:
            raise RequestRefused("unknown_handle", f"no prefill {handle!r} is held here: submit the prompt's tokens")
        prompt = held.tokens if held is not None else list(tokens or ())
        key = content_key("submit", model, prompt, params, constraint)
        for attempt in (handle, None):
            await self._wait_until_up()
            is_current = held is not None and held.epoch == self._epoch and attempt is not None
            command = Submit(
                id=self._new_id(),
                model=model,
                params=params,
                tokens=None if is_current else prompt,
                handle=attempt if is_current else None,
                constraint=constraint,
                priority=priority,
                deadline_s=deadline_s,
                salt=held.salt if held is not None else salt,
            )
            try:
                async with contextlib.aclosing(self._stream(command, key)) as events:
                    async for event in events:
                        yield event
                return
            except RequestRefused as refusal:
                if refusal.code != "unknown_handle" or command.handle is None:
                    raise

    def release(self, handle: str) -> None:
        """Free a prepared prompt that will not be submitted. Unknown handles are ignored."""
        if self._held.pop(handle, None) is not None:
            self._transport.send(Release(handle))

    async def stats(self) -> dict[str, dict[str, Any]]:
        """Counters by model (see EngineCore.stats). Raises EngineDied."""
        command = GetStats(self._new_id())
        event = await self._ask(command.id, command, b"stats")
        if not isinstance(event, Stats):
            raise _unexpected(event)
        return event.models

    async def close(self, grace_s: float = 10.0) -> None:
        """End the engine; running requests may finish within `grace_s`, the others get EngineDied."""
        self._up.clear()
        self._fatal = "the engine was closed"
        if self._restarting is not None:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
        await self._transport.close(grace_s)
        await asyncio.sleep(0)  # events that the engine's last moments posted to this loop
        self._fail_calls()

    async def __aenter__(self) -> "EngineClient":
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close, with no grace for what still runs."""
        await self.close(0.0)

    async def _ask(self, call_id: str, command: Command, key: bytes) -> Event:
        """Send a command that exactly one event answers."""
        await self._wait_until_up()
        call = self._open(call_id, key)
        try:
            self._transport.send(command)
            event = await call.inbox.get()
        finally:
            del self._calls[call_id]
        return self._checked(event, key)

    async def _stream(self, command: Submit, key: bytes) -> AsyncGenerator[Delta | Finished, None]:
        call = self._open(command.id, key)
        is_over = False
        try:
            self._transport.send(command)
            while not is_over:
                event = await call.inbox.get()
                is_over = not isinstance(event, Delta)
                event = self._checked(event, key)
                if not isinstance(event, Delta | Finished):
                    raise _unexpected(event)
                yield event
        finally:
            del self._calls[command.id]
            if not is_over:
                self._transport.send(Cancel(command.id))

    def _open(self, call_id: str, key: bytes) -> _Call:
        if self._suspects.is_poison(key):
            raise RequestRefused("poisoned", "the engine died twice while it computed this request: change the request")
        call = self._calls[call_id] = _Call(key)
        return call

    def _checked(self, event: Event | None, key: bytes) -> Event:
        if event is None:
            raise EngineDied("the engine ended while it computed this request: send it again")
        if isinstance(event, Failed):
            raise as_exception(event)
        if not isinstance(event, Delta):
            self._suspects.clear(key)
        return event

    async def _wait_until_up(self) -> None:
        if self._fatal is None and not self._up.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._up.wait(), self._restart.wait_s)
        if self._fatal is not None:
            raise EngineDied(self._fatal)
        if not self._up.is_set():
            raise RequestRefused("engine_restarting", "the engine is being restarted: try again later", 5.0)

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            call = self._calls.get(getattr(event, "id", ""))
            if call is not None:
                call.inbox.put_nowait(event)
            elif isinstance(event, Prepared):  # its caller left between the answer's way and now
                self._transport.send(Release(event.handle))

    def _on_death(self, reason: str) -> None:
        self._up.clear()
        self._suspects.note_death(call.key for call in self._calls.values())
        self._fail_calls()
        settled = time.monotonic() - self._started_s > self._restart.settled_s
        self._deaths_in_row = 1 if settled else self._deaths_in_row + 1
        self._restarting = asyncio.create_task(self._start_again(reason), name="engine-restart")

    async def _start_again(self, reason: str) -> None:
        while not self._up.is_set():
            pause_s = min(self._restart.max_s, self._restart.first_s * 2 ** (self._deaths_in_row - 1))
            log.error("the engine died (%s); starting it again in %.1f s", reason, pause_s)
            await asyncio.sleep(pause_s)
            try:
                await self.start()
            except LoadFailed as error:
                self._fatal = f"the engine died and could not be loaded again: {error}"
                self._up.set()
                return
            except EngineDied as error:
                reason = str(error)
                self._deaths_in_row += 1

    def _fail_calls(self) -> None:
        for call in self._calls.values():
            call.inbox.put_nowait(None)

    def _new_id(self) -> str:
        return f"{self._epoch}-{next(self._ids)}"


def _unexpected(event: Event) -> EngineError:
    return EngineError(f"the engine answered with {type(event).__name__}: both sides must run the same version")
