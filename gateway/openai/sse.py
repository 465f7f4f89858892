"""Server-sent events as OpenAI writes them: `data: {json}` and an empty line, at the end `data: [DONE]`."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import msgspec
from litestar.types import Receive, Scope, Send

from gateway.openai.disconnect import ClientDisconnected, unless_disconnected

DONE = b"data: [DONE]\n\n"
_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


def frame(body: msgspec.Struct) -> bytes:
    """One event. JSON has no raw line breaks, so a single `data:` line holds any body."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


class EventStream:
    """An ASGI response that sends frames as they come and stops when the client goes away.

    on_close is called exactly once at the end, however it came, even if `frames` was never started.
    """

    def __init__(
        self, frames: AsyncGenerator[bytes, None], headers: Mapping[str, str], on_close: Callable[[], None]
    ) -> None:
        self._frames, self._on_close = frames, on_close
        self._headers = [(k.encode(), v.encode("latin-1")) for k, v in {**headers, **_HEADERS}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the response."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            await unless_disconnected(receive, self._send(send))
        except ClientDisconnected:
            pass  # there is no one left to tell
        finally:
            self._on_close()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._frames):
            async for data in self._frames:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
