"""Every exception leaves as an OpenAI-shaped error that reveals nothing of the server."""

import msgspec
import pytest
from litestar.exceptions import HTTPException, NotFoundException, ValidationException

from engine.request import EngineDied, EngineError, RequestRefused
from gateway.accounts.authenticator import InvalidKey, KeysUnavailable
from gateway.drain import Draining
from gateway.openai.errors import ApiError, bad_request, clean, from_exception
from gateway.routing.catalogue import UnknownModel
from gateway.routing.eligibility import NothingEligible
from grammars.errors import CompileTimeout, ConstraintRefused


@pytest.mark.parametrize(
    ("exc", "status", "code", "kind"),
    [
        (bad_request("no", "n"), 400, "invalid_value", "invalid_request_error"),
        (ConstraintRefused("not", "", "no"), 400, "constraint_refused", "invalid_request_error"),
        (NothingEligible("long"), 400, "context_length_exceeded", "invalid_request_error"),
        (RequestRefused("too_long", "long"), 400, "context_length_exceeded", "invalid_request_error"),
        (ValidationException("bad"), 400, "invalid_request", "invalid_request_error"),
        (HTTPException(status_code=422), 400, "invalid_request", "invalid_request_error"),
        (InvalidKey("no key"), 401, "invalid_api_key", "invalid_request_error"),
        (UnknownModel("none"), 404, "model_not_found", "invalid_request_error"),
        (NotFoundException(), 404, "not_found", "invalid_request_error"),
        (RequestRefused("overloaded", "full", 3.0), 429, "server_overloaded", "rate_limit_error"),
        (RequestRefused("poisoned", "no"), 400, "poisoned", "invalid_request_error"),
        (RequestRefused("engine_restarting", "no", 5.0), 503, "engine_restarting", "server_error"),
        (RequestRefused("duplicate_id", "no"), 500, "duplicate_id", "server_error"),
        (EngineError("x"), 500, "engine_error", "server_error"),
        (RuntimeError("secret /srv/key"), 500, "internal_error", "server_error"),
        (CompileTimeout("2 s"), 503, "compile_timeout", "server_error"),
        (EngineDied("x"), 503, "engine_died", "server_error"),
        (KeysUnavailable("away"), 503, "keys_unavailable", "server_error"),
        (Draining("stop"), 503, "draining", "server_error"),
    ],
)
def test_each_exception_has_its_status_code_and_type(exc: Exception, status: int, code: str, kind: str) -> None:
    error = from_exception(exc)
    assert (error.status, error.detail.code, error.detail.type) == (status, code, kind)
    body = msgspec.json.decode(msgspec.json.encode(error.body))
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert ("keyword" in body["error"]) == isinstance(exc, ConstraintRefused)


@pytest.mark.parametrize("exc", [RequestRefused("overloaded", "full", 3.0), Draining("x"), CompileTimeout("x")])
def test_what_may_pass_says_when_to_try_again(exc: Exception) -> None:
    headers = from_exception(exc).headers
    assert int(headers["retry-after"]) >= 1
    assert int(headers["retry-after-ms"]) >= 1000


def test_unforeseen_errors_tell_the_client_nothing() -> None:
    assert "secret" not in from_exception(RuntimeError("secret /srv/key")).detail.message


def test_messages_lose_addresses_and_paths() -> None:
    text = clean("<Tokenizer at 0x7f3a2b> failed to open /home/me/models/x.json: no")
    assert text == "<Tokenizer> failed to open (path): no"
    assert clean("keyword at /properties/a and https://example.com/usr/x") == (
        "keyword at /properties/a and https://example.com/usr/x"
    )
    assert isinstance(from_exception(ApiError(400, "a", "b")), ApiError)
