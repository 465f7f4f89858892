"""`POST /v1/chat/completions`."""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from gateway.openai.body import read_body
from gateway.openai.disconnect import unless_disconnected
from gateway.openai.exchange import Exchange
from gateway.openai.guard import principal_of
from gateway.openai.job import Arrival
from gateway.openai.routing_ask import routing_headers
from gateway.openai.sse import EventStream
from gateway.services import Services
from gateway.telemetry.request_trace import RequestTrace

PATH = "/v1/chat/completions"


@post(PATH, status_code=200)
async def create_chat_completion(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a chat, whole or as a stream of events. A client that leaves cancels its generation."""
    services: Services = request.app.state.services
    arrival = Arrival()
    services.drain.enter()
    trace = RequestTrace(services.tracing.tracer, "POST", PATH, request.headers, arrival.arrived_s)
    exchange = Exchange(services, trace, principal_of(request), arrival)
    asked = routing_headers(request.scope["headers"])
    try:
        settings = services.settings
        body = await read_body(request, max_bytes=settings.limits.body_bytes, timeout_s=settings.deadline_s)
        await unless_disconnected(request.receive, exchange.begin(body, headers=asked))
        if exchange.job.request.stream:
            frames = await unless_disconnected(request.receive, exchange.open_stream())
            return EventStream(frames, exchange.headers(), exchange.close)
        completion = await unless_disconnected(request.receive, exchange.complete())
        headers = exchange.headers()
    except BaseException as exc:
        exchange.fail(exc)
        exchange.close()
        raise
    exchange.close()
    return ASGIResponse(body=msgspec.json.encode(completion), headers=headers, media_type="application/json")
