"""Who a response is: request ids, completion ids, and the headers that every response carries."""

import re
import secrets
import time

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

OPENAI_VERSION = "2020-10-01"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


def new_identifier(prefix: str) -> str:
    """`prefix` and 96 random bits: `chatcmpl-…`, `call_…`, `req_…`."""
    return prefix + secrets.token_hex(12)


def request_id_of(headers: Headers) -> str:
    """The client's `x-request-id` where it is well-formed, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _WELL_FORMED.fullmatch(given) else new_identifier("req_")


class ResponseIdentity:
    """Adds `x-request-id`, `openai-version` and `openai-processing-ms` to every response.

    It wraps the whole application: Litestar's own middleware does not see requests that match no route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and mark its response."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = request_id_of(Headers.from_scope(scope))
        scope["state"]["request_id"] = request_id

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                headers["x-request-id"] = request_id
                headers["openai-version"] = OPENAI_VERSION
                headers["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            await send(message)

        await self._app(scope, receive, marked)
