"""Which of the deployment's routers decides in this process, and how that changes while it serves.

A promotion made here comes into force at once; one that another process made (the command, another gateway on the same
data folder), within WATCH_S seconds.
"""

import asyncio
import logging

from gateway.routing.catalogue import Catalogue
from gateway.routing.policy_source import load_policy
from gateway.routing.promotion import registry_of
from gateway.routing.router import Router
from gateway.settings import Settings
from router_model.registry import Registry

log = logging.getLogger(__name__)

WATCH_S = 3.0


class ServedRouters:
    """`start`, then `take_over` after a change; `close`. changing: held by whoever changes what is in force."""

    def __init__(self, settings: Settings, catalogue: Catalogue, router: Router) -> None:
        self._settings, self._catalogue, self._router = settings, catalogue, router
        self.registry: Registry = registry_of(settings)
        self.changing = asyncio.Lock()
        self._seen: str | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch. The router was given what is in force now."""
        self._seen = self._current()
        self._task = asyncio.create_task(self._watch(), name="served-routers")

    async def take_over(self) -> None:
        """Decide with what is in force now."""
        self._seen = self._current()
        policy = await asyncio.to_thread(load_policy, self._settings, self._catalogue)
        self._router.use(policy)
        log.info("the router in force is now %s", "none" if policy is None else policy.artefact.hash[:12])

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if self._current() != self._seen:
                    async with self.changing:
                        await self.take_over()
            except Exception as error:  # the router in force stays, whatever lies in the folder
                log.warning("the registry of routers cannot be read: %s", error)

    def _current(self) -> str | None:
        return self.registry.current()
