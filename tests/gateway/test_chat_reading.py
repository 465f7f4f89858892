"""Bodies become requests or one clear 400; nothing that constrains an answer is dropped on the way."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai.errors import ApiError
from gateway.openai.nesting import json_depth
from gateway.openai.reading import REFUSED, read_chat

HELLO: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


def body(**fields: Any) -> bytes:
    return json.dumps(HELLO | fields).encode()


def refused(data: bytes, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_chat(data, **options)
    assert caught.value.status == 400
    return caught.value


def brute_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((brute_depth(v) for v in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((brute_depth(v) for v in value), default=0)
    return 0


TEXTS = st.text(alphabet='[]{}"\\ab', max_size=8)
JSON = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


@settings(deadline=None)
@given(JSON)
def test_depth_counts_brackets_outside_strings_only(value: Any) -> None:
    assert json_depth(json.dumps(value).encode()) == brute_depth(value)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_hundred_thousand_levels_are_a_400(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deep = opening * 100_000 + b"1" + closing * 100_000
    error = refused(b'{"messages":[],"x":' + deep + b"}")
    assert error.detail.code == "json_too_deep"
    assert refused(opening * 100_000).detail.code == "json_too_deep"


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 900_000, b'"' * 2_000_000, b'{"a":"' + b"\\" * 1_999_999])
def test_two_megabytes_of_quotes_take_no_quadratic_time(data: bytes) -> None:
    refused(data)


def test_null_means_absent_for_every_field() -> None:
    fields = [name for name in read_chat(body()).request.__struct_fields__ if name not in ("messages", "model")]
    reading = read_chat(body(**dict.fromkeys([*fields, *REFUSED, "something_else"])))
    assert reading.request == read_chat(body()).request
    assert reading.ignored == ()


def test_unknown_names_are_listed_or_refused_under_strict_params() -> None:
    reading = read_chat(body(reasoning_effort="low", x_custom=1))
    assert reading.ignored == ("reasoning_effort", "x_custom")
    error = refused(body(x_custom=1), strict_params=True)
    assert (error.detail.code, error.detail.param) == ("unsupported_parameter", "x_custom")


@pytest.mark.parametrize(
    "name", [*REFUSED, "guided_whitespace_pattern", "json_schema", "my_grammar", "format", "regex"]
)
def test_what_would_change_the_answer_is_never_ignored(name: str) -> None:
    error = refused(body(**{name: "x"}))
    assert (error.detail.code, error.detail.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": "ten"}, "max_tokens", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0]", "missing_required_parameter"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_type"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"response_format": {"type": "json_schema", "grammar": "x"}}, "response_format", "invalid_type"),
        ({"structured_outputs": {"jsn": {}}}, "structured_outputs", "invalid_type"),
    ],
)
def test_a_wrong_type_names_its_field(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(body(**fields))
    assert (error.detail.param, error.detail.code) == (param, code)
    assert param in error.detail.message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"messages": [}', b'"text"', b"[1]", b'{"model":"auto"}'])
def test_what_is_no_request_is_a_400(data: bytes) -> None:
    refused(data)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_a_400(data: bytes) -> None:
    def status() -> int:
        try:
            read_chat(data)
        except ApiError as error:
            return error.status
        return 200

    assert status() in (200, 400)


def test_former_names_of_constraints_are_reported_as_deprecated() -> None:
    assert read_chat(body(guided_regex="a+", guided_json={})).deprecated == ("guided_regex", "guided_json")
