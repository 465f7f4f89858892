"""The engine as the gateway sees it: asynchronous calls and streams, over a core that may die and come back."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.child import Patience, ProcessTransport
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
from engine.supervision import EngineHealth, RestartPolicy, Supervisor
from engine.transport import Death, ThreadTransport, Transport
from grammars.constraint import Constraint
from grammars.errors import ConstraintRefused

__all__ = ["EngineClient"]


@dataclass(slots=True)
class _Call:
    """A command in flight, and where its events go. None in the inbox means that the engine died. key: None for what
    asks nothing of a model, and is never suspected.
    """

    key: bytes | None
    inbox: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)


@dataclass(frozen=True, slots=True)
class _Held:
    """What a handle stands for, in case the engine that holds it is no longer there. params, first: of the answer that
    was begun with it, if one was."""

    model: str
    tokens: list[int]
    salt: str
    epoch: int
    params: SamplingParams | None = None
    first: Delta | None = None

    def opening(self, params: SamplingParams, constraint: Constraint | None) -> Delta | None:
        """The first token of the answer that was begun, where that is what these ask for."""
        if self.first is None or self.params is None or constraint is not None:
            return None
        if params == self.params:
            return self.first
        if params.logprobs is None and msgspec.structs.replace(self.params, logprobs=None) == params:
            return msgspec.structs.replace(self.first, logprobs=None)
        return None


class EngineClient:
    """Use `in_process` or `in_child`, then `start`; or `async with`. Belongs to one event loop."""

    def __init__(self, transport: Transport, restart: RestartPolicy | None = None) -> None:
        self._engine = Supervisor(transport, restart or RestartPolicy(), self._on_events, self._on_death)
        self._ids = itertools.count(1)
        self._calls: dict[str, _Call] = {}
        self._held: dict[str, _Held] = {}
        self._suspects = Suspects()

    @classmethod
    def in_process(cls, config: PairConfig) -> "EngineClient":
        """The core on a thread of this process: for tests and development."""
        return cls(ThreadTransport(config))

    @classmethod
    def in_child(
        cls, config: PairConfig, restart: RestartPolicy | None = None, patience: Patience | None = None
    ) -> "EngineClient":
        """The core in a supervised child process."""
        return cls(ProcessTransport(config, patience), restart)

    async def start(self) -> Ready:
        """Load the models. Raises LoadFailed with what is wrong, or EngineDied."""
        return await self._engine.start()

    @property
    def health(self) -> EngineHealth:
        """How the engine is, how often it was started again, and why."""
        return self._engine.health

    @property
    def n_calls(self) -> int:
        """Commands that wait for their answer, or for the rest of it."""
        return len(self._calls)

    @property
    def n_held(self) -> int:
        """Prepared prompts that were neither submitted nor released."""
        return len(self._held)

    def info(self) -> list[ModelInfo]:
        """The loaded models. Raises EngineError before `start`."""
        if self._engine.ready is None:
            raise EngineError("the engine was not started: await start() first")
        return self._engine.ready.models

    @property
    def shares_vocabulary(self) -> bool:
        """Whether every token id means the same in all models."""
        return self._engine.ready is not None and self._engine.ready.shares_vocabulary

    async def wait_until_up(self) -> None:
        """Wait for a restart, if there is one: a limit on what the engine does itself should begin only then.

        Raises RequestRefused where it takes too long or fails, EngineDied when the engine was closed.
        """
        await self._engine.wait_until_up()

    async def compile(self, model: str, constraint: Constraint) -> Compiled:
        """Compile ahead of a submit. Raises ConstraintRefused, CompileTimeout, RequestRefused, EngineDied."""
        command = Compile(self._new_id(), model, constraint)
        try:
            key = content_key("compile", model, constraint)
        except OverflowError as error:
            reason = "holds a whole number of more than 64 bits: use a smaller one, or a pattern of digits"
            raise ConstraintRefused("schema", "", reason) from error
        event = await self._ask(command.id, command, key)
        if not isinstance(event, Compiled):
            raise _unexpected(event)
        return event

    async def prepare(
        self,
        model: str,
        tokens: Sequence[int],
        *,
        salt: str = "",
        turn_start: int = 0,
        params: SamplingParams | None = None,
    ) -> Prepared:
        """Compute a prompt and hold it; pass the handle to `submit` or `release`. Raises RequestRefused, EngineDied.

        turn_start: where its last turn begins, see Prepare. params: of the answer that will probably be submitted, with
        no constraint: its first token is drawn with the prefill then, so that the answer begins without waiting for the
        engine again; any other answer can be submitted all the same. Cancelling the call frees what was computed.
        """
        command = Prepare(self._new_id(), model, list(tokens), salt, turn_start, params)
        try:
            event = await self._ask(command.id, command, content_key("tokens", model, command.tokens))
        except asyncio.CancelledError:
            self._engine.send(Release(command.id))
            raise
        if not isinstance(event, Prepared):
            raise _unexpected(event)
        self._held[event.handle] = _Held(model, command.tokens, salt, self._engine.epoch, params, event.first)
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
        prediction: Sequence[int] = (),
    ) -> AsyncGenerator[Delta | Finished, None]:
        """Generate: deltas, then exactly one Finished, or an exception.

        tokens or handle: a prompt, or a prepared one; a handle whose engine is gone is computed anew, unseen. Where the
        same params were prepared, the first delta is there at once.
        prediction: tokens that the answer is expected to have, see Submit. Closing the generator early cancels the
        request. Raises ConstraintRefused, CompileTimeout, RequestRefused, EngineDied, EngineError.
        """
        held = self._held.pop(handle, None) if handle is not None else None
        if handle is not None and held is None:
            raise RequestRefused("unknown_handle", f"no prefill {handle!r} is held here: submit the prompt's tokens")
        prompt = held.tokens if held is not None else list(tokens or ())
        key = content_key("submit", model, prompt, params, constraint)
        for attempt in (handle, None):
            await self._engine.wait_until_up()
            is_current = held is not None and held.epoch == self._engine.epoch and attempt is not None
            first = held.opening(params, constraint) if held is not None and is_current else None
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
                prediction=list(prediction),
                continues=first is not None,
            )
            try:
                async with contextlib.aclosing(self._stream(command, key, first)) as events:
                    async for event in events:
                        yield event
                return
            except RequestRefused as refusal:
                if refusal.code != "unknown_handle" or command.handle is None or first is not None:
                    raise  # what was told cannot be taken back

    def release(self, handle: str) -> None:
        """Free a prepared prompt that will not be submitted. Unknown handles are ignored."""
        if self._held.pop(handle, None) is not None:
            self._engine.send(Release(handle))

    async def stats(self) -> dict[str, dict[str, Any]]:
        """Counters by model (see EngineCore.stats). Raises EngineDied."""
        command = GetStats(self._new_id())
        event = await self._ask(command.id, command, None)
        if not isinstance(event, Stats):
            raise _unexpected(event)
        return event.models

    async def close(self, grace_s: float = 10.0) -> None:
        """End the engine; running requests may finish within `grace_s`, the others get EngineDied."""
        await self._engine.close(grace_s)
        await asyncio.sleep(0)  # events that the engine's last moments posted to this loop
        self._fail_calls()

    async def __aenter__(self) -> "EngineClient":
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close, with no grace for what still runs."""
        await self.close(0.0)

    async def _ask(self, call_id: str, command: Command, key: bytes | None) -> Event:
        """Send a command that exactly one event answers."""
        await self._engine.wait_until_up()
        call = self._open(call_id, key)
        try:
            self._engine.send(command)
            event = await call.inbox.get()
        finally:
            del self._calls[call_id]
        return self._checked(event, key)

    async def _stream(self, command: Submit, key: bytes, first: Delta | None) -> AsyncGenerator[Delta | Finished, None]:
        """first: what is known to come before the events."""
        call = self._open(command.id, key)
        is_sent = is_over = False
        try:
            if first is not None:
                yield msgspec.structs.replace(first, id=command.id)
                await asyncio.sleep(0)  # who reads it goes first: the engine, once woken, may want this very core
            self._engine.send(command)
            is_sent = True
            while not is_over:
                event = await call.inbox.get()
                is_over = not isinstance(event, Delta)
                event = self._checked(event, key)
                if not isinstance(event, Delta | Finished):
                    raise _unexpected(event)
                yield event
        finally:
            del self._calls[command.id]
            if not is_sent and command.handle is not None:
                self._engine.send(Release(command.handle))
            elif not is_over:
                self._engine.send(Cancel(command.id))

    def _open(self, call_id: str, key: bytes | None) -> _Call:
        if key is not None and self._suspects.is_poison(key):
            raise RequestRefused("poisoned", "the engine died twice while it computed this request: change the request")
        call = self._calls[call_id] = _Call(key)
        return call

    def _checked(self, event: Event | None, key: bytes | None) -> Event:
        if event is None:
            raise EngineDied("the engine ended while it computed this request: send it again")
        if isinstance(event, Failed):
            raise as_exception(event)
        if key is not None and not isinstance(event, Delta):
            self._suspects.clear(key)
        return event

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            call = self._calls.get(getattr(event, "id", ""))
            if call is not None:
                call.inbox.put_nowait(event)
            elif isinstance(event, Prepared):  # its caller left between the answer's way and now
                self._engine.send(Release(event.handle))

    def _on_death(self, death: Death) -> None:
        """Everybody in flight gets an error; who the engine worked for (all, where that is unknown) is suspected."""
        busy = self._calls.keys() if death.working_for is None else self._calls.keys() & death.working_for
        self._suspects.note_death(key for call_id in busy if (key := self._calls[call_id].key) is not None)
        self._fail_calls()

    def _fail_calls(self) -> None:
        for call in self._calls.values():
            call.inbox.put_nowait(None)

    def _new_id(self) -> str:
        return f"{self._engine.epoch}-{next(self._ids)}"


def _unexpected(event: Event) -> EngineError:
    return EngineError(f"the engine answered with {type(event).__name__}: both sides must run the same version")
