"""Streams: exactly OpenAI's frames, and the same answer as without streaming."""

import json
from typing import Any

import openai
import pytest

from tests.gateway.server import GatewayServer

HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "paint",
            "parameters": {
                "type": "object",
                "properties": {
                    "colour": {"enum": ["red", "blue"]},
                    "coats": {"type": "integer", "minimum": 1, "maximum": 3},
                },
                "required": ["colour", "coats"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "stop"}},
]


def frames(server: GatewayServer, **fields: Any) -> list[dict[str, Any]]:
    """The decoded events of a stream, its framing checked byte by byte."""
    reply = server.chat(stream=True, **fields)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    *events, last, rest = reply.body.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b"")
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def joined(chunks: list[dict[str, Any]], n: int = 1) -> list[dict[str, Any]]:
    """Message and finish reason of each choice, put together from its deltas."""
    choices: list[dict[str, Any]] = [{"content": "", "calls": [], "finish": None} for _ in range(n)]
    for chunk in chunks:
        for part in chunk["choices"]:
            choice, delta = choices[part["index"]], part["delta"]
            assert choice["finish"] is None, "nothing follows the finish chunk of a choice"
            choice["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls", []):
                if call["index"] == len(choice["calls"]):
                    assert call["type"] == "function"
                    assert call["id"]
                    choice["calls"].append({"name": call["function"]["name"], "arguments": ""})
                else:
                    assert "id" not in call
                    assert "name" not in call["function"]
                choice["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            choice["finish"] = part["finish_reason"]
    return choices


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 30, "seed": 1},
        {"max_tokens": 30, "seed": 2, "n": 3},
        {"max_tokens": 80, "seed": 3, "tools": TOOLS, "tool_choice": "required"},
        {"max_tokens": 40, "seed": 4, "tools": TOOLS},
        {"max_tokens": 30, "seed": 5, "structured_outputs": {"regex": "[a-d]{12}"}, "model": "large"},
        {"max_tokens": 30, "seed": 6, "stop": ["e"], "temperature": 0.7},
        {"max_tokens": 30, "temperature": 0, "model": "auto-cost"},
    ],
)
def test_a_stream_is_the_same_answer_in_pieces(server: GatewayServer, fields: dict[str, Any]) -> None:
    whole = server.chat(**fields).json
    parts = joined(frames(server, **fields), fields.get("n", 1))
    for choice, part in zip(whole["choices"], parts, strict=True):
        message = choice["message"]
        assert part["content"] == (message["content"] or "")
        assert part["calls"] == [call["function"] for call in message.get("tool_calls", [])]
        assert part["finish"] == choice["finish_reason"]


def test_the_first_delta_has_the_role_and_the_last_the_reason(server: GatewayServer) -> None:
    chunks = frames(server, max_tokens=4)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert len({(chunk["id"], chunk["model"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[-1]["router"]["cost_usd"] > 0


def test_usage_comes_last_and_is_null_before(server: GatewayServer) -> None:
    chunks = frames(server, max_tokens=4, ignore_eos=True, n=2, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert chunks[-1]["router"]["cost_usd"] > 0
    assert all("router" not in chunk for chunk in chunks[:-1])


def test_logprobs_are_streamed_for_every_token(server: GatewayServer) -> None:
    fields = {"max_tokens": 9, "ignore_eos": True, "logprobs": True, "top_logprobs": 1, "seed": 2}
    whole = server.chat(**fields).json["choices"][0]["logprobs"]["content"]
    chunks = frames(server, **fields)
    parts = [
        token for c in chunks for part in c["choices"] if part["logprobs"] for token in part["logprobs"]["content"]
    ]
    assert [token["bytes"] for token in parts] == [token["bytes"] for token in whole]
    assert len(parts) == 9


def test_the_official_client_reads_streamed_tool_calls(server: GatewayServer) -> None:
    with (
        server.client() as client,
        client.chat.completions.stream(
            model="small", messages=HI, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
        ) as stream,
    ):
        for _ in stream:
            pass
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert {call.function.name for call in calls} <= {"paint", "stop"}
    assert final.choices[0].finish_reason == "tool_calls"


def test_a_refusal_before_the_first_token_is_a_status_not_an_event(server: GatewayServer) -> None:
    reply = server.chat(
        stream=True,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}},
    )
    assert reply.status == 400
    assert reply.json["error"]["code"] == "constraint_refused"
    with server.client() as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="small", messages=HI, max_tokens=10**6, stream=True)
