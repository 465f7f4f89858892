"""Open to everyone: is the process alive, can it answer, what version is it. `/metrics` asks for a key like the API."""

import asyncio
import contextlib
import time
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Request, Response, get

from engine.request import EngineError
from engine.supervision import EngineHealth
from gateway.openai.errors import clean
from gateway.openai.guard import OPEN
from gateway.services import Services

_STATS_TIMEOUT_S = 2.0


class EngineStatus(msgspec.Struct):
    """last_death: how the engine's process ended the last time, or why it did not start; seconds_since_death: since
    then. heartbeat_age_s: since its last sign of life, null where none is expected (it restarts, or is a thread).
    """

    restarts: int
    last_death: str | None
    seconds_since_death: float | None
    heartbeat_age_s: float | None


class Health(msgspec.Struct, omit_defaults=True):
    """status: `ok`; `draining`: it stops; `restarting`: the engine died, requests wait for its restart; `unavailable`:
    the engine does not start, requests are answered 503 while that goes on being tried.
    """

    status: str
    models: list[str] = []
    engine: EngineStatus | None = None


class Version(msgspec.Struct):
    """Of the server; prices: version of the price table in force."""

    version: str
    prices: str


@get("/health/live", opt=OPEN, sync_to_thread=False)
def live() -> Health:
    """200 as long as the process answers at all."""
    return Health("ok")


@get(["/health", "/health/ready"], opt=OPEN, sync_to_thread=False)
def ready(request: Request[Any, Any, Any]) -> Response[Health]:
    """200 when requests would be answered, else 503."""
    services: Services = request.app.state.services
    models = [model.id for model in services.catalogue.models]
    engine = services.engine.health
    match engine.state:
        case "up":
            status = "ok"
        case "restarting":
            status = "restarting"
        case "unavailable" | "down":
            status = "unavailable"
    if services.drain.begun:
        status = "draining"
    return Response(Health(status, models, _status(engine)), status_code=200 if status == "ok" else 503)


def _status(engine: EngineHealth) -> EngineStatus:
    death = engine.last_death
    return EngineStatus(
        restarts=engine.restarts,
        last_death=None if death is None else clean(death.detail),
        seconds_since_death=None if engine.last_death_s is None else time.time() - engine.last_death_s,
        heartbeat_age_s=engine.silent_s,
    )


@get("/version", opt=OPEN, sync_to_thread=False)
def show_version(request: Request[Any, Any, Any]) -> Version:
    """What is running."""
    services: Services = request.app.state.services
    return Version(version("pointsman"), services.settings.prices.version)


@get("/metrics")
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Prometheus' text format. The engine's own counters are those of the last scrape that reached it, and none while
    it is gone: what it was doing then is not true any more."""
    services: Services = request.app.state.services
    if services.engine.health.state == "up":
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(_STATS_TIMEOUT_S):
                services.metrics.update_engine(await services.engine.stats())
    else:
        services.metrics.update_engine({})
    return Response(services.metrics.render(), media_type=services.metrics.content_type)
