"""Reads a request's body: bounded in size, and in the time that a slow sender may take."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from litestar import Request

from gateway.openai.disconnect import ClientDisconnected
from gateway.openai.errors import ApiError

if TYPE_CHECKING:
    from litestar.types import HTTPReceiveMessage

_DISCARD_FACTOR = 8


async def read_body(request: Request[Any, Any, Any], *, max_bytes: int, timeout_s: float) -> bytes:
    """The body. A client that sends too much is read a while longer before it is refused: one that is cut off while it
    still writes sees a broken pipe instead of the answer.

    Raises ApiError 413 or 408, or ClientDisconnected.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, max_bytes)
    except TimeoutError:
        message = f"The body did not arrive within {timeout_s:g} seconds; send it again."
        raise ApiError(408, "request_timeout", message) from None


async def _read(request: Request[Any, Any, Any], max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= _DISCARD_FACTOR * max_bytes:
        message = cast("HTTPReceiveMessage", await request.receive())
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        data = message.get("body", b"")
        size += len(data)
        if size <= max_bytes:
            parts.append(data)
        more = message.get("more_body", False)
    if size > max_bytes:
        raise ApiError(413, "request_too_large", f"The body is larger than {max_bytes} bytes; send fewer messages.")
    return b"".join(parts)
