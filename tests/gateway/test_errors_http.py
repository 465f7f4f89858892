"""Errors over HTTP: status, shape and headers, from bodies that no client of good will sends as well."""

from typing import Any

import openai
import pytest

from tests.gateway.server import GatewayServer, Reply

HI: list[Any] = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


def error_of(reply: Reply, status: int) -> dict[str, Any]:
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"error"}
    error: dict[str, Any] = reply.json["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert reply.headers["x-request-id"]
    assert int(reply.headers["openai-processing-ms"]) >= 0
    return error


@pytest.mark.parametrize(
    ("path", "method", "body", "status", "code"),
    [
        ("/nothing/here", "GET", None, 404, "not_found"),
        (CHAT, "GET", None, 405, "method_not_allowed"),
        (CHAT, "POST", b"x" * 2_000_001, 413, "request_too_large"),
        (CHAT, "POST", b"{", 400, "invalid_json"),
        (CHAT, "POST", b"", 400, "invalid_json"),
        (CHAT, "POST", b"[" * 100_000 + b"]" * 100_000, 400, "json_too_deep"),
        (CHAT, "POST", b'{"messages":[' + b'{"a":' * 100_000, 400, "json_too_deep"),
        (CHAT, "POST", b'{"model":"small"}', 400, "missing_required_parameter"),
        (CHAT, "POST", b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_json"),
        ("/v1/models/gpt-4", "GET", None, 404, "model_not_found"),
    ],
)
def test_every_failure_has_the_same_shape(
    server: GatewayServer, path: str, method: str, body: bytes | None, status: int, code: str
) -> None:
    assert error_of(server.fetch(path, body, method=method), status)["code"] == code


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "gpt-4"}, 404, "model_not_found", "model"),
        ({"n": 10**9}, 400, "invalid_value", "n"),
        ({"max_tokens": 5000}, 400, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "context_length_exceeded", "messages"),
        ({"functions": []}, 400, "unsupported_parameter", "functions"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400,
         "unsupported_parameter", "messages[0].content[0]"),
        ({"structured_outputs": {"regex": "(a"}}, 400, "constraint_refused", "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "root ::= x"}}, 400, "constraint_refused", "structured_outputs.grammar"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, 400,
         "constraint_refused", "response_format"),
        ({"logit_bias": {"999999": 1}}, 400, "invalid_value", "logit_bias"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_served_says_what_to_change(
    server: GatewayServer, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    error = error_of(server.chat(**fields), status)
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


def test_the_official_client_raises_its_own_errors(server: GatewayServer) -> None:
    with server.client() as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="small", messages=HI, temperature=9)
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="gpt-4", messages=HI)
    assert bad.value.param == "temperature"
    assert missing.value.code == "model_not_found"
    assert bad.value.request_id


@pytest.mark.parametrize(
    ("given", "echoed"), [("my-id_1.2", True), ("bad id\t", False), ("x" * 200, False), ("", False)]
)
def test_a_well_formed_request_id_is_echoed(server: GatewayServer, given: str, echoed: bool) -> None:
    reply = server.fetch("/health", headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) == echoed
    assert reply.headers["x-request-id"]


def test_a_host_header_with_a_path_in_it_opens_no_door(server: GatewayServer) -> None:
    reply = server.fetch("/v1/models", headers={"host": "a/health?x="})
    assert reply.status == 400


def test_ignored_parameters_are_listed(server: GatewayServer) -> None:
    reply = server.chat(reasoning_effort="low", store=True, x_sonderbar="é")
    assert reply.status == 200
    assert reply.headers["x-ignored-params"] == "reasoning_effort,x_sonderbar"


def test_a_refusal_is_on_record_and_leaves_nothing_behind(server: GatewayServer) -> None:
    before = server.engine("small")
    assert server.chat(structured_outputs={"regex": "(a"}).status == 400
    after = server.engine("small")
    assert after["compile_refused"] == before["compile_refused"] + 1
    assert after["submitted"] == before["submitted"]
