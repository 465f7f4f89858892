"""`POST /v1/router/decide`: which model a chat request would get, and why, without an answer."""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from gateway.openai.body import read_body
from gateway.openai.disconnect import unless_disconnected
from gateway.openai.explain import explanation
from gateway.openai.expressible import expressible
from gateway.openai.guard import principal_of
from gateway.openai.job import Arrival
from gateway.openai.ledger import router_headers, router_of
from gateway.openai.responses import RouterOut
from gateway.openai.routing_ask import routing_headers
from gateway.routing.router import Route
from gateway.services import Services


@post("/v1/router/decide", status_code=200)
async def decide(request: Request[Any, Any, Any]) -> ASGIApp:
    """Take a chat request, headers and body, and return its `router` object with the explanation.

    A dry run: nothing is generated, recorded, explored or learned, and no conversation is remembered. The small model's
    prefill that the decision reads is given back at once; its pages stay in the prefix cache, as after any request.
    """
    services: Services = request.app.state.services
    services.drain.enter()
    try:
        settings = services.settings
        body = await read_body(request, max_bytes=settings.limits.body_bytes, timeout_s=settings.deadline_s)
        out = await unless_disconnected(request.receive, _decided(services, request, body))
    finally:
        services.drain.leave()
    return ASGIResponse(body=msgspec.json.encode(out), headers=router_headers(out), media_type="application/json")


async def _decided(services: Services, request: Request[Any, Any, Any], body: bytes) -> RouterOut:
    settings = services.settings
    job = await services.intake.read(
        body, principal_of(request), Arrival(), headers=routing_headers(request.scope["headers"])
    )
    job = await expressible(job, services.engine, compile_s=settings.limits.compile_s)
    question = job.question()
    route: Route = await services.router.route(question, is_dry=True)
    services.router.drop(route)
    out = router_of(job, route.decision)
    out.explain = explanation(question, route, exploration=settings.routing.exploration)
    return out
