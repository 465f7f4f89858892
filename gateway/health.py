"""Open to everyone: is the process alive, can it answer, what version is it. `/metrics` asks for a key like the API."""

import asyncio
import contextlib
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Request, Response, get

from engine.request import EngineError
from gateway.openai.guard import OPEN
from gateway.services import Services

_STATS_TIMEOUT_S = 2.0


class Health(msgspec.Struct):
    """status: `ok`, `draining` (stopping) or `starting` (the engine is not ready, or restarts)."""

    status: str
    models: list[str] = []


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
    if services.drain.begun:
        return Response(Health("draining", models), status_code=503)
    if not services.engine.is_up:
        return Response(Health("starting", models), status_code=503)
    return Response(Health("ok", models))


@get("/version", opt=OPEN, sync_to_thread=False)
def show_version(request: Request[Any, Any, Any]) -> Version:
    """What is running."""
    services: Services = request.app.state.services
    return Version(version("pointsman"), services.settings.prices.version)


@get("/metrics")
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Prometheus' text format; the engine's own counters are those of the last scrape that reached it."""
    services: Services = request.app.state.services
    with contextlib.suppress(EngineError, TimeoutError):
        async with asyncio.timeout(_STATS_TIMEOUT_S):
            services.metrics.update_engine(await services.engine.stats())
    return Response(services.metrics.render(), media_type=services.metrics.content_type)
