"""`GET` and `POST /v1/router/shadow`: how many live answers are compared with the other model's."""

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from msgspec import Meta

from gateway.openai.errors import bad_request
from gateway.openai.guard import operator_of
from gateway.router_api.reading import read_json
from gateway.routing.live_shadow import LiveShadow, ShadowCounts
from gateway.services import Services


class ShadowIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays. share: of the routed requests, 0 stops; at_once: most comparisons at the
    same time.
    """

    share: Annotated[float, Meta(ge=0, le=1)] | None = None
    at_once: Annotated[int, Meta(ge=1, le=64)] | None = None


class ShadowOut(msgspec.Struct, kw_only=True):
    """How it stands, in this process and since its start. source: what grades, the source of the outcomes."""

    object: str = "router.shadow"
    share: float
    at_once: int
    source: str
    waiting: int
    running: int
    counts: ShadowCounts


@get("/v1/router/shadow", sync_to_thread=False)
def show_shadow(request: Request[Any, Any, Any]) -> ShadowOut:
    """State and counts, for a key that may operate the router."""
    operator_of(request)
    services: Services = request.app.state.services
    return _state(services.shadow)


@post("/v1/router/shadow", status_code=200)
async def change_shadow(request: Request[Any, Any, Any]) -> ShadowOut:
    """Start, change or stop it until the server ends; the settings say what it starts with."""
    operator_of(request)
    services: Services = request.app.state.services
    asked = await read_json(request, ShadowIn)
    if asked.share is None and asked.at_once is None:
        raise bad_request("Send `share` (0 to 1, 0 stops) or `at_once` (1 to 64).")
    services.shadow.configure(share=asked.share, at_once=asked.at_once)
    return _state(services.shadow)


def _state(shadow: LiveShadow) -> ShadowOut:
    return ShadowOut(
        share=shadow.share,
        at_once=shadow.at_once,
        source=shadow.grader_name,
        waiting=shadow.n_waiting,
        running=shadow.n_running,
        counts=shadow.counts,
    )
