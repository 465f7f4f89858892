"""The life of an engine behind a transport: started, watched, and started again when it dies, ever more slowly."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.messages import Command, Event, Ready
from engine.request import EngineDied, RequestRefused
from engine.transport import Death, Listener, LoadFailed, Transport

__all__ = ["EngineHealth", "RestartPolicy", "Supervisor"]

log = logging.getLogger(__name__)

EngineState = Literal["up", "restarting", "unavailable", "down"]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """first_s, max_s: pause before a restart, doubled with each death that follows within `settled_s` of a start.
    wait_s: how long a new request waits for a restart before it is refused.
    """

    first_s: float = 0.1
    max_s: float = 10.0
    settled_s: float = 30.0
    wait_s: float = 60.0

    def pause_s(self, deaths_in_row: int) -> float:
        """Seconds to wait before the start that follows the n-th death in a row."""
        return min(self.max_s, self.first_s * 2.0 ** min(deaths_in_row - 1, 60))


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """state: `up`; `restarting`, after a death: requests wait; `unavailable`, after a start that failed: requests are
    refused until one succeeds, which goes on being tried; `down`: not started yet, or closed. last_death_s: Unix time.
    silent_s: since the last sign of life, None where none is expected.
    """

    state: EngineState
    restarts: int
    last_death: Death | None
    last_death_s: float | None
    silent_s: float | None


class Supervisor:
    """Belongs to one event loop. on_events and on_death: see Listener; on_death comes before the restart begins."""

    def __init__(
        self,
        transport: Transport,
        policy: RestartPolicy,
        on_events: Callable[[Sequence[Event]], None],
        on_death: Callable[[Death], None],
    ) -> None:
        self._transport, self._policy = transport, policy
        self._listener = Listener(on_events, self._died)
        self._on_death = on_death
        self._state: EngineState = "down"
        self._settled = asyncio.Event()  # set unless the state is `restarting`
        self._settled.set()
        self._restarting: asyncio.Task[None] | None = None
        self._deaths_in_row = 0
        self._started_s = 0.0
        self._last_death: Death | None = None
        self._last_death_s: float | None = None
        self.epoch = 0
        self.ready: Ready | None = None

    @property
    def health(self) -> EngineHealth:
        """How the engine is."""
        return EngineHealth(
            self._state, max(0, self.epoch - 1), self._last_death, self._last_death_s, self._transport.silent_s
        )

    async def start(self) -> Ready:
        """Load the models. Raises LoadFailed with what is wrong, or EngineDied."""
        self.ready = await self._transport.open(self._listener)
        self.epoch += 1
        self._started_s = time.monotonic()
        self._settle("up")
        return self.ready

    def send(self, command: Command) -> None:
        """See Transport."""
        self._transport.send(command)

    async def wait_until_up(self) -> None:
        """Wait for a restart to end. Raises RequestRefused where it takes too long or fails, EngineDied when down."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.wait_s):
                while self._state == "restarting":
                    await self._settled.wait()
        match self._state:
            case "restarting":
                raise RequestRefused("engine_restarting", "the engine is being restarted: try again later", 5.0)
            case "unavailable":
                raise RequestRefused(
                    "engine_unavailable", "the engine does not start: try again later", self._policy.max_s
                )
            case "down":
                raise EngineDied("the engine was closed, or never started")

    async def close(self, grace_s: float) -> None:
        """End the engine; running requests may finish within `grace_s`."""
        self._settle("down")
        if self._restarting is not None:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
        await self._transport.close(grace_s)

    def _died(self, death: Death) -> None:
        self._state = "restarting"
        self._settled.clear()
        settled = time.monotonic() - self._started_s > self._policy.settled_s
        self._note(death, deaths_in_row=1 if settled else self._deaths_in_row + 1)
        self._on_death(death)
        self._restarting = asyncio.create_task(self._start_again(), name="engine-restart")

    async def _start_again(self) -> None:
        while True:
            pause_s = self._policy.pause_s(self._deaths_in_row)
            log.info("starting the engine again in %.1f s", pause_s)
            await asyncio.sleep(pause_s)
            try:
                await self.start()
            except Exception as error:  # whatever it is: nobody else would try again
                cause = "load_failed" if isinstance(error, LoadFailed) else "start_failed"
                self._note(Death(cause, str(error)), deaths_in_row=self._deaths_in_row + 1)
                self._settle("unavailable")
            else:
                return

    def _note(self, death: Death, *, deaths_in_row: int) -> None:
        self._last_death, self._last_death_s, self._deaths_in_row = death, time.time(), deaths_in_row
        log.error("the engine died, or did not start (%s): %s", death.cause, death.detail)

    def _settle(self, state: EngineState) -> None:
        self._state = state
        self._settled.set()
