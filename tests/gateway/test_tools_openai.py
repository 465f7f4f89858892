"""Tool calls through the official client: shapes, choices, and conversations that go on after a call."""

import json
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.gateway.server import GatewayServer

HI: list[Any] = [{"role": "user", "content": "hi"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather now.", "parameters": CITY}},
    {"type": "function", "function": {"name": "no_arguments"}},
]


def calls_of(reply: Any) -> list[Any]:
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls: list[Any] = choice.message.tool_calls
    return calls


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_has_valid_arguments(server: GatewayServer, seed: int) -> None:
    with server.client() as client:
        reply = client.chat.completions.create(
            model="large", messages=HI, tools=TOOLS, tool_choice="required", max_tokens=400, seed=seed, temperature=1.5
        )
    calls = calls_of(reply)
    schemas = {"get_weather": CITY, "no_arguments": {"type": "object", "maxProperties": 0}}
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])


@pytest.mark.parametrize("seed", range(4))
def test_without_parallel_calls_there_is_one(server: GatewayServer, seed: int) -> None:
    with server.client() as client:
        reply = client.chat.completions.create(
            model="small", messages=HI, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, seed=seed
        )
    assert len(calls_of(reply)) == 1


def test_a_named_tool_is_called_exactly_once(server: GatewayServer) -> None:
    with server.client() as client:
        reply = client.chat.completions.create(
            model="small",
            messages=HI,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
        )
    assert [call.function.name for call in calls_of(reply)] == ["get_weather"]


def test_allowed_tools_narrow_the_choice(server: GatewayServer) -> None:
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "no_arguments"}}]},
    }
    with server.client() as client:
        reply = client.chat.completions.create(
            model="small", messages=HI, tools=TOOLS, tool_choice=allowed, parallel_tool_calls=False
        )
    assert [call.function.name for call in calls_of(reply)] == ["no_arguments"]


def test_with_no_choice_brackets_are_only_text(server: GatewayServer) -> None:
    pattern = r'\[\{"name":"no_arguments","arguments":\{\}\}\]'
    reply = server.chat(tools=TOOLS, tool_choice="none", structured_outputs={"regex": pattern}, max_tokens=100)
    message = reply.json["choices"][0]["message"]
    assert message["content"] == '[{"name":"no_arguments","arguments":{}}]'
    assert "tool_calls" not in message


def test_a_pydantic_tool_is_parsed_by_the_client(server: GatewayServer) -> None:
    class Paint(BaseModel):
        """Paint a wall."""

        coats: int = Field(ge=1, le=3)

    tool = openai.pydantic_function_tool(Paint)
    with server.client() as client:
        reply = client.chat.completions.parse(
            model="small", messages=HI, tools=[tool], tool_choice="required", parallel_tool_calls=False, max_tokens=60
        )
    calls = reply.choices[0].message.tool_calls
    assert calls
    assert isinstance(calls[0].function.parsed_arguments, Paint)


def test_a_conversation_goes_on_after_a_call(server: GatewayServer) -> None:
    with server.client() as client:
        first = client.chat.completions.create(
            model="small", messages=HI, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
        )
        call = calls_of(first)[0]
        messages = [
            *HI,
            first.choices[0].message.to_dict(),
            {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"},
        ]
        second = client.chat.completions.create(
            model="small", messages=messages, tools=TOOLS, tool_choice="none", max_tokens=5
        )  # type: ignore[arg-type]
    assert second.choices[0].message.content is not None
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_tool_schema_that_cannot_be_enforced_is_refused_with_its_pointer(server: GatewayServer) -> None:
    parameters = {"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}}
    reply = server.chat(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert reply.status == 400
    error = reply.json["error"]
    assert (error["code"], error["param"], error["keyword"]) == ("constraint_refused", "tools", "$ref")
    assert error["pointer"].endswith("/properties/a")
