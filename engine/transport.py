"""How commands reach an engine core and events come back: the protocol, and the core on a thread of this process."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.messages import Command, Event, Ready, Shutdown
from engine.pair_config import PairConfig
from engine.request import EngineError

__all__ = ["Death", "Listener", "LoadFailed", "ThreadTransport", "Transport"]

log = logging.getLogger(__name__)


class LoadFailed(EngineError):
    """The models could not be loaded; trying again would not help until the message's cause is mended."""

    code = "load_failed"


@dataclass(frozen=True, slots=True)
class Death:
    """How an engine ended. cause: from a small set, fit for a label (`SIGKILL`, `exit code 1`, `silent`). detail: the
    same for people. working_for: ids of the commands it was busy with at that moment, None where that is unknown.
    """

    cause: str
    detail: str
    working_for: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """on_events: what came out, in order. on_death: the engine is gone. Both are called on the event loop; after
    on_death nothing more comes until the next `open`.
    """

    on_events: Callable[[Sequence[Event]], None]
    on_death: Callable[[Death], None]


class Transport(Protocol):
    """One engine at a time. `open` may be called again after a death or a close."""

    @property
    def silent_s(self) -> float | None:
        """Seconds since the engine's last sign of life; None where there is no engine, or nobody watches it."""

    async def open(self, listener: Listener) -> Ready:
        """Start an engine and wait until its models are loaded. Raises LoadFailed, or EngineDied if it went away or
        took too long."""

    def send(self, command: Command) -> None:
        """Hand over a command; it is dropped if the engine is gone, which `on_death` tells."""

    async def close(self, grace_s: float) -> None:
        """End the engine: running requests may finish within `grace_s`. on_death is not called for it."""


class ThreadTransport:
    """The core on a thread of this process: for tests and development. A crash in the core ends this process, and a
    hang is noticed by nobody: a thread cannot be killed.
    """

    silent_s = None

    def __init__(self, config: PairConfig) -> None:
        self._config = config
        self._thread: threading.Thread | None = None
        self._post: Callable[[Command], None] | None = None

    async def open(self, listener: Listener) -> Ready:
        """See Transport."""
        from engine.pair import load_engine  # torch: a process whose engine is a child never needs it

        loop = asyncio.get_running_loop()
        try:
            loaded = await asyncio.to_thread(load_engine, self._config)
        except (OSError, ValueError) as error:
            raise LoadFailed(str(error)) from error
        core = loaded.core

        def tell(call: Callable[[], None]) -> None:
            if not loop.is_closed():  # the client may leave without closing
                loop.call_soon_threadsafe(call)

        def run() -> None:
            try:
                core.run(lambda events: tell(lambda: listener.on_events(events)))
            except Exception as error:
                log.exception("the engine's thread ended")
                death = Death("exception", f"{type(error).__name__}: {error}")
                tell(lambda: listener.on_death(death))
            finally:
                core.close()

        self._post = core.post
        self._thread = threading.Thread(target=run, name="engine-core", daemon=True)
        self._thread.start()
        return loaded.ready()

    def send(self, command: Command) -> None:
        """See Transport."""
        if self._post is not None:
            self._post(command)

    async def close(self, grace_s: float) -> None:
        """See Transport."""
        if self._thread is not None:
            self.send(Shutdown(grace_s))
            await asyncio.to_thread(self._thread.join)
            self._thread = self._post = None
