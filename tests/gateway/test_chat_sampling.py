"""Sampling fields, limits and messages: defaults, ranges, and the field that an error names."""

import json
from typing import Any

import pytest

from engine.request import SamplingParams
from gateway.openai.conversation import conversation_text, template_messages
from gateway.openai.errors import ApiError
from gateway.openai.limits import check_limits
from gateway.openai.reading import read_chat
from gateway.openai.sampling import sampling_params
from gateway.openai.schemas import ChatRequest
from gateway.settings import LimitSettings

HI = {"role": "user", "content": "hi"}


def request(**fields: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [HI], **fields}).encode()).request


def params(**fields: Any) -> SamplingParams:
    return sampling_params(request(**fields), vocab_size=100, room=50)


def test_an_empty_request_samples_as_openai_does() -> None:
    assert params() == SamplingParams(temperature=1.0, top_p=1.0, max_tokens=50)


def test_every_field_arrives() -> None:
    found = params(
        temperature=0,
        top_p=0.5,
        top_k=-1,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=-2,
        frequency_penalty=2,
        logit_bias={"7": -100},
        seed=-5,
        stop="END",
        stop_token_ids=[3],
        include_stop_str_in_output=True,
        min_tokens=2,
        max_completion_tokens=9,
        ignore_eos=True,
        logprobs=True,
        top_logprobs=4,
    )
    assert found == SamplingParams(
        temperature=0.0,
        top_p=0.5,
        top_k=0,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        logit_bias={7: -100.0},
        seed=-5,
        stop=("END",),
        stop_token_ids=(3,),
        include_stop_str=True,
        min_tokens=2,
        max_tokens=9,
        ignore_eos=True,
        logprobs=4,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -2),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("logit_bias", {"100": 1}),
        ("logit_bias", {"1": 101}),
        ("seed", 2**63),
        ("stop", [""]),
        ("stop_token_ids", [-1]),
        ("min_tokens", 51),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
    ],
)
def test_a_value_out_of_range_is_a_400_that_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        params(**{field: value})
    assert (caught.value.status, caught.value.detail.param) == (400, field)
    assert field in caught.value.detail.message


def test_the_two_names_of_max_tokens_must_agree() -> None:
    assert params(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    with pytest.raises(ApiError, match="differ"):
        params(max_tokens=5, max_completion_tokens=6)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 10**9}, "n"),
        ({"n": 0}, "n"),
        ({"stop": list("abcde")}, "stop"),
        ({"logit_bias": {str(i): 0 for i in range(1025)}}, "logit_bias"),
        ({"messages": [HI] * 2049}, "messages"),
        ({"messages": []}, "messages"),
        ({"tools": [{"function": {"name": f"f{i}"}} for i in range(129)]}, "tools"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"priority": 101}, "priority"),
        ({"cache_salt": "s" * 513}, "cache_salt"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
    ],
)
def test_limits_are_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_limits(request(**fields), LimitSettings())
    assert (caught.value.status, caught.value.detail.param) == (400, param)


def test_messages_become_the_turns_of_a_template() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{"}}
    messages = request(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ada"},
            {"role": "assistant", "content": None, "tool_calls": [call, broken]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ]
    ).messages
    assert template_messages(messages) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb", "name": "Ada"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{"}},
            ],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    assert conversation_text(messages) == "be brief\na\nb\n42"


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0]", "unsupported_parameter"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0]", "unsupported_parameter"),
        ({"role": "user"}, "messages[0].content", "invalid_value"),
        ({"role": "robot", "content": "x"}, "messages[0].role", "invalid_value"),
        ({"role": "tool", "content": "x"}, "messages[0]", "invalid_value"),
        ({"role": "assistant", "function_call": {}}, "messages[0].function_call", "unsupported_parameter"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio", "unsupported_parameter"),
        (
            {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
            "messages[0]",
            "invalid_value",
        ),
    ],
)
def test_a_message_that_is_not_served_is_named(message: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        template_messages(request(messages=[message]).messages)
    assert (caught.value.detail.param, caught.value.detail.code) == (param, code)
