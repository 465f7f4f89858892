"""Every error leaves in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`, saying what to change."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from engine.request import EngineDied, EngineError, RequestRefused
from gateway.accounts.authenticator import AccountError, InvalidKey
from gateway.drain import Draining
from gateway.openai.disconnect import ClientDisconnected
from gateway.routing.catalogue import UnknownModel
from gateway.routing.eligibility import NothingEligible
from gateway.routing.wishes import RouterConflict
from grammars.errors import CompileTimeout, ConstraintRefused

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status of a request whose client left before its answer: for records only."""

# Memory addresses and paths of the server's disk are nobody's business (vLLM cleans its messages of them, too).
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PATH = re.compile(r"(?<![\w/.:])/(?:home|root|usr|opt|var|tmp|srv|etc)/[^\s'\",;:)]*")


class ErrorDetail(msgspec.Struct, kw_only=True):
    """The object under `error`. keyword and pointer name the part of a constraint that was refused."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    keyword: str | msgspec.UnsetType = msgspec.UNSET
    pointer: str | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct):
    """The whole body of an error response, and the payload of an error event in a stream."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer other than 200. `headers` are added to the response (`retry-after`, `x-should-retry`)."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        type: str | None = None,
        keyword: str | None = None,
        pointer: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.detail = ErrorDetail(
            message=clean(message),
            type=type or default_type(status),
            param=param,
            code=code,
            keyword=msgspec.UNSET if keyword is None else keyword,
            pointer=msgspec.UNSET if pointer is None else pointer,
        )

    @property
    def body(self) -> ErrorBody:
        """What is sent."""
        return ErrorBody(self.detail)


def default_type(status: int) -> str:
    """OpenAI's `type` for a status that names none of its own."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def clean(message: str) -> str:
    """The message without memory addresses and absolute paths of the server."""
    return _PATH.sub("(path)", _ADDRESS.sub("", message))


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A 400 for a value that the client has to change."""
    return ApiError(400, code, message, param=param)


def unsupported(name: str, why: str) -> ApiError:
    """A 400 for a parameter that Pointsman does not serve and will not silently drop."""
    return ApiError(400, "unsupported_parameter", f"Unsupported parameter '{name}': {why}", param=name)


def refused_constraint(refusal: ConstraintRefused, param: str | None) -> ApiError:
    """A 400 that names the keyword and the JSON pointer of what no backend can enforce exactly."""
    where = refusal.pointer or "the root"
    return ApiError(
        400,
        "constraint_refused",
        f"The constraint cannot be enforced exactly: keyword '{refusal.keyword}' at {where}: {refusal.reason}",
        param=param,
        keyword=refusal.keyword,
        pointer=refusal.pointer,
    )


def overloaded(code: str, message: str, retry_after_s: float, status: int = 429) -> ApiError:
    """A refusal that another attempt may escape, with both forms of Retry-After."""
    seconds = max(retry_after_s, 0.001)
    headers = {"retry-after": str(max(1, round(seconds))), "retry-after-ms": str(round(seconds * 1000))}
    return ApiError(status, code, message, headers=headers)


def from_exception(exc: Exception) -> ApiError:
    """Any exception as the answer that the client gets; what nobody foresaw is a 500 that reveals nothing."""
    match exc:
        case ApiError():
            return exc
        case ClientDisconnected():  # there is no one left to send it to
            return ApiError(CLIENT_GONE, "client_disconnected", "The client closed the connection.")
        case ConstraintRefused():
            return refused_constraint(exc, None)
        case InvalidKey():
            return ApiError(401, exc.code, _sentence(exc), headers={"www-authenticate": "Bearer"})
        case AccountError():
            return overloaded(exc.code, _sentence(exc), 5.0, status=503)
        case Draining():
            return overloaded("draining", _sentence(exc), 5.0, status=503)
        case UnknownModel():
            return ApiError(404, "model_not_found", str(exc), param="model")
        case RouterConflict():
            return bad_request(_sentence(exc), "router", "router_conflict")
        case NothingEligible():
            return bad_request(str(exc), "messages", "context_length_exceeded")
        case CompileTimeout():
            return overloaded("compile_timeout", f"Compiling the constraint took too long: {exc}", 5.0, status=503)
        case RequestRefused():
            return _refused_by_engine(exc)
        case EngineDied():
            return overloaded("engine_died", "The engine stopped while it answered; it restarts: try again.", 2.0, 503)
        case EngineError() if exc.code == "grammar_too_slow":
            return bad_request(_sentence(exc), None, exc.code)
        case EngineError():
            return ApiError(500, exc.code, f"The engine could not finish the request: {exc}")
        case HTTPException():
            return _from_http(exc)
    return ApiError(500, "internal_error", "The server failed on this request; the operator's log has the cause.")


def _refused_by_engine(refusal: RequestRefused) -> ApiError:
    """Admission's refusals: the request's fault, the moment's, or (codes that no request should cause) our own."""
    match refusal.code:
        case "too_long":
            return bad_request(_sentence(refusal), "messages", "context_length_exceeded")
        case "empty_prompt" | "bad_token":
            return bad_request(_sentence(refusal), "messages", refusal.code)
        case "poisoned":
            return ApiError(400, refusal.code, _sentence(refusal), headers={"x-should-retry": "false"})
        case "shutting_down" | "engine_restarting" | "engine_unavailable":
            return overloaded(refusal.code, _sentence(refusal), refusal.retry_after_s or 5.0, status=503)
    if refusal.retry_after_s is not None:
        return overloaded("server_overloaded", _sentence(refusal), refusal.retry_after_s)
    return ApiError(500, refusal.code, f"The engine could not take the request: {refusal}")


def _sentence(exc: Exception) -> str:
    """The message as a sentence, with a capital letter and a full stop."""
    text = str(exc)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '…')) else '.'}"


_HTTP_CODES = {
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}
_HTTP_MESSAGES = {
    404: "There is nothing at {method} {path}; see /v1/models and the documentation for what is served.",
    405: "{path} does not take {method}.",
    413: "The request body is larger than this server accepts; send fewer or shorter messages.",
}


def _from_http(exc: HTTPException) -> ApiError:
    status = 400 if exc.status_code == 422 else exc.status_code
    code = _HTTP_CODES.get(status, "internal_error" if status >= 500 else "invalid_request")
    return ApiError(status, code, str(exc.detail), headers=exc.headers)


def log_unforeseen(exc: Exception, error: ApiError) -> None:
    """Log the cause of a 500 that nobody foresaw: the client is told nothing of it."""
    if error.detail.code == "internal_error":
        log.error("unhandled %s", type(exc).__name__, exc_info=exc)


def respond(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    error = from_exception(exc)
    if isinstance(exc, HTTPException) and error.status in _HTTP_MESSAGES:
        message = _HTTP_MESSAGES[error.status].format(method=request.method, path=request.url.path)
        error.detail.message = clean(message)
    log_unforeseen(exc, error)
    return Response(
        msgspec.json.encode(error.body),
        status_code=error.status,
        media_type="application/json",
        headers=error.headers,
    )


def exception_handlers() -> ExceptionHandlersMap:
    """The map for the application: HTTP errors of the framework, and everything else."""
    return {HTTPException: respond, Exception: respond}
