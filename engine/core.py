"""The step loop over one or two models: commands in, one step of one model at a time, events out. It owns its
thread."""

import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from engine.arbiter import Arbiter, Claim
from engine.constrain import CompileFailure, CompileOutcome, ConstraintCompiler, TokenMatcher
from engine.heartbeat import NoPulse, Pulse
from engine.instance import ModelInstance
from engine.messages import (
    Cancel,
    Command,
    Compile,
    Compiled,
    Event,
    Finished,
    GetStats,
    ModelInfo,
    Prepare,
    Release,
    Shutdown,
    Stats,
    Submit,
    failed,
)
from engine.request import EngineError, FinishReason, RequestRefused, RequestTimeline

__all__ = ["EngineCore"]

_IDLE_BEAT_S = 0.5


@dataclass(frozen=True, slots=True)
class _CompileDone:
    """Posted by a compile thread."""

    command: Compile | Submit
    outcome: CompileOutcome


class EngineCore:
    """`post` may be called from any thread; everything else belongs to the thread that steps.

    A core never blocks on I/O, and nothing that one request causes ends another: refusals and faults of a request
    become its terminal event. What `step` raises is a fault of the engine itself, after which the core must not be
    used.
    """

    def __init__(
        self,
        instances: Mapping[str, ModelInstance],
        compiler: ConstraintCompiler,
        *,
        arbiter: Arbiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """instances: by the name that commands use."""
        self._instances, self._compiler, self._clock = instances, compiler, clock
        self._arbiter = arbiter or Arbiter()
        self._inbox: queue.SimpleQueue[Command | _CompileDone] = queue.SimpleQueue()
        self._first: Command | _CompileDone | None = None
        self._pulse: Pulse = NoPulse()
        self._compiling: dict[str, Compile | Submit] = {}
        self._shutdown_at: float | None = None

    def post(self, command: Command) -> None:
        """Hand in a command; its events come out of a later `step`."""
        self._inbox.put(command)

    def wait(self, timeout_s: float | None) -> None:
        """Sleep until something is posted, the next deadline passes or the time is over."""
        deadlines = [d for instance in self._instances.values() if (d := instance.earliest_deadline()) is not None]
        if self._shutdown_at is not None:
            deadlines.append(self._shutdown_at)
        if deadlines:
            until = max(0.0, min(deadlines) - self._clock())
            timeout_s = until if timeout_s is None else min(until, timeout_s)
        try:
            self._first = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something now."""
        return (
            self._first is not None
            or not self._inbox.empty()
            or any(instance.has_work for instance in self._instances.values())
        )

    @property
    def is_over(self) -> bool:
        """Whether a Shutdown was asked for and nothing is left to do, or its grace has passed."""
        if self._shutdown_at is None:
            return False
        busy = self._compiling or any(instance.n_live for instance in self._instances.values())
        return not busy or self._clock() >= self._shutdown_at

    def step(self) -> list[Event]:
        """Take in what was posted, then compute one step of the model whose turn it is."""
        events: list[Event] = []
        for item in self._posted():
            self.beat((_id_of(item),))
            try:
                events.extend(self._take(item))
            except EngineError as error:
                if isinstance(item, Prepare | Submit) and item.model in self._instances:
                    self._instances[item.model].counters.refused += 1
                events.append(failed(_id_of(item), error))
        for instance in self._instances.values():
            events.extend(instance.expire())
        claims = [Claim(name, instance.slack_s()) for name, instance in self._instances.items() if instance.has_work]
        if claims:
            name = self._arbiter.pick(claims)
            others = (other for known, other in self._instances.items() if known != name)
            self._instances[name].scheduler.pace.shares_machine = any(other.scheduler.is_streaming for other in others)
            before = self._instances[name].busy_s
            events.extend(self._instances[name].step(self))
            self._arbiter.charge(name, self._instances[name].busy_s - before)
        return events

    def run(self, emit: Callable[[Sequence[Event]], None], pulse: Pulse | None = None) -> None:
        """Step until a Shutdown is over; `emit` gets the events of each step. pulse: is told what the loop is doing,
        at least every half second while there is nothing to do."""
        if pulse is not None:
            self._pulse = pulse
        while not self.is_over:
            if not self.has_work:
                self.beat(())
                self.wait(None if pulse is None else _IDLE_BEAT_S)
            if events := self.step():
                emit(events)

    def beat(self, ids: Iterable[str], expected_s: float = 0.0) -> None:
        """Pass on what is being done, with those whose constraints are being compiled beside it. See Pulse."""
        self._pulse.beat([*ids, *self._compiling], expected_s)

    def info(self) -> list[ModelInfo]:
        """What clients must know of each model."""
        return [instance.info for instance in self._instances.values()]

    def stats(self) -> dict[str, dict[str, Any]]:
        """Per model: the cumulative counts of `stats.Counters`, and what is true right now under names ending in
        `_now`."""
        return {name: instance.stats() for name, instance in self._instances.items()}

    def warm(self) -> None:
        """Load what the first constrained request would have to wait for."""
        self._compiler.warm()

    def close(self) -> None:
        """End the threads beside the step loop."""
        self._compiler.close()
        for instance in self._instances.values():
            instance.close()

    def _posted(self) -> list[Command | _CompileDone]:
        items = [] if self._first is None else [self._first]
        self._first = None
        while True:
            try:
                items.append(self._inbox.get_nowait())
            except queue.Empty:
                return items

    def _take(self, item: Command | _CompileDone) -> list[Event]:
        match item:
            case Compile():
                self._instance(item.model)
                self._new_id(item.id)
                self._compile(item)
            case Prepare():
                self._refuse_when_ending()
                self._new_id(item.id)
                self._instance(item.model).prepare(item)
            case Submit():
                return self._submit(item)
            case Cancel():
                return self._cancel(item.id)
            case Release():
                self._release(item.handle)
            case GetStats():
                return [Stats(item.id, self.stats())]
            case Shutdown():
                self._shutdown_at = self._clock() + item.grace_s
            case _CompileDone():
                return self._compile_done(item.command, item.outcome)
            case _:
                assert_never(item)
        return []

    def _submit(self, command: Submit) -> list[Event]:
        self._refuse_when_ending()
        self._new_id(command.id)
        self._instance(command.model)
        if (command.tokens is None) == (command.handle is None):
            raise RequestRefused("bad_submit", "submit either tokens or a handle")
        if command.continues and (command.handle is None or command.constraint is not None):
            raise RequestRefused("bad_submit", "only a handle can be continued, and without a constraint")
        if command.constraint is None:
            return self._admit(command, None)
        self._compile(command)
        return []

    def _admit(self, command: Submit, matcher: TokenMatcher | None) -> list[Event]:
        try:
            return self._instance(command.model).submit(command, matcher)
        except EngineError:
            self._release(command.handle)
            raise

    def _cancel(self, request_id: str) -> list[Event]:
        command = self._compiling.get(request_id)
        if isinstance(command, Submit):
            del self._compiling[request_id]
            self._release(command.handle)
            now = self._clock()
            return [
                Finished(
                    id=request_id,
                    reason=FinishReason.CANCELLED,
                    text="",
                    token_ids=[],
                    timeline=RequestTimeline(arrived_s=now, finished_s=now),
                    is_complete=False,
                )
            ]
        return [event for instance in self._instances.values() for event in instance.cancel(request_id)]

    def _release(self, handle: str | None) -> None:
        if handle is not None:
            for instance in self._instances.values():
                instance.release(handle)

    def _compile(self, command: Compile | Submit) -> None:
        if command.constraint is not None:
            self._compiling[command.id] = command
            self._compiler.start(
                command.model, command.constraint, lambda outcome: self._inbox.put(_CompileDone(command, outcome))
            )

    def _compile_done(self, command: Compile | Submit, outcome: CompileOutcome) -> list[Event]:
        counters = self._instance(command.model).counters
        counters.compile_s += outcome.seconds
        if self._compiling.pop(command.id, None) is None:
            return []  # cancelled meanwhile
        if isinstance(outcome, CompileFailure):
            counters.compile_refused += 1
            if isinstance(command, Submit):
                self._release(command.handle)
            return [failed(command.id, outcome.error)]
        counters.compiled += 1
        if isinstance(command, Submit):
            return self._admit(command, outcome.matcher)
        compiled = outcome.compiled
        return [Compiled(command.id, compiled.backend, outcome.cached, outcome.seconds, list(compiled.warnings))]

    def _instance(self, name: str) -> ModelInstance:
        try:
            return self._instances[name]
        except KeyError:
            known = ", ".join(sorted(self._instances))
            raise RequestRefused("unknown_model", f"no model is called {name!r}: use one of {known}") from None

    def _new_id(self, request_id: str) -> None:
        if request_id in self._compiling or any(instance.knows(request_id) for instance in self._instances.values()):
            raise RequestRefused("duplicate_id", f"id {request_id!r} is in use: choose another")

    def _refuse_when_ending(self) -> None:
        if self._shutdown_at is not None:
            raise RequestRefused("shutting_down", "the engine is shutting down: try again later", retry_after_s=5.0)


def _id_of(item: Command | _CompileDone) -> str:
    if isinstance(item, _CompileDone):
        return item.command.id
    return item.handle if isinstance(item, Release) else getattr(item, "id", "")
