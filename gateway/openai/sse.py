"""Server-sent events as OpenAI writes them: `data: {json}` and an empty line, at the end `data: [DONE]`."""

import msgspec

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = b"data: [DONE]\n\n"


def frame(body: msgspec.Struct) -> bytes:
    """One event. JSON has no raw line breaks, so a single `data:` line holds any body."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
