"""Bodies of the router's endpoints: JSON of one type, bounded, strict about names."""

import re
from typing import Any, TypeVar

import msgspec
from litestar import Request

from gateway.openai.body import read_body
from gateway.openai.errors import ApiError, bad_request
from gateway.openai.nesting import json_depth
from gateway.services import Services

T = TypeVar("T")

_MAX_BYTES = 1 << 20


async def read_json(request: Request[Any, Any, Any], type: type[T], *, max_bytes: int = _MAX_BYTES) -> T:
    """The body as `type`, a msgspec structure that should forbid unknown fields.

    Only `application/json` is taken: a page in a browser cannot send that to a server on its user's machine without
    asking the server first, and this one never says yes. Raises ApiError 400, 413 or 415, or ClientDisconnected.
    """
    services: Services = request.app.state.services
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "unsupported_media_type", "Send JSON with the header `content-type: application/json`.")
    settings = services.settings
    limit = min(max_bytes, settings.limits.body_bytes)
    body = await read_body(request, max_bytes=limit, timeout_s=settings.deadline_s)
    if json_depth(body) > settings.limits.json_depth:
        raise bad_request(
            f"The body nests deeper than {settings.limits.json_depth} levels; flatten it.", code="json_too_deep"
        )
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        path = re.search(r"\$\.?([^`]*)", where)
        param = path[1] if path else ""
        place = f" at '{param}'" if param else ""
        raise bad_request(
            f"Invalid request{place}: {message.replace('`', chr(39))}.", param or None, "invalid_type"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The body is not valid JSON: {error}", code="invalid_json") from error
