"""A pair whose models speak different formats, over HTTP with the official client: to a client they look the same."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from engine.tokenizer import Tokenizer
from tests.engine.checkpoints import build_checkpoint
from tests.gateway.dialect_templates import HERMES, LLAMA, MISTRAL, PYTHONIC, save_template
from tests.gateway.server import HIDDEN, Checkpoints, GatewayServer, run_server

HI: list[Any] = [{"role": "user", "content": "hi"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, None]}},
    "required": ["city"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": CITY, "ping": {"type": "object", "maxProperties": 0}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": CITY}},
    {"type": "function", "function": {"name": "ping"}},
]
ANSWER = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
FORMATS: list[Any] = [
    None,
    {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "ping"}}]},
}
PAIRS = {"hermes+mistral": (HERMES, MISTRAL), "llama3_json+pythonic": (LLAMA, PYTHONIC)}
BEGINS = {"hermes+mistral": ("<tool_call>", "[TOOL_CALLS]"), "llama3_json+pythonic": ("{", "[")}


@dataclass(frozen=True, slots=True)
class Pair:
    """A running server; by alias the folders of its models, and what their calls begin with."""

    server: GatewayServer
    folders: dict[str, Path]
    begins: dict[str, str]

    def client(self) -> openai.OpenAI:
        """The official client."""
        return self.server.client()


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A server of two models with these templates."""
    folder = tmp_path_factory.mktemp("dialects")
    made = Checkpoints(folder / "first", folder / "second")
    for path, template, seed in zip((made.small, made.large), PAIRS[request.param], (1, 2), strict=True):
        build_checkpoint(path, "llama", seed=seed, hidden_size=HIDDEN, max_position_embeddings=2048)
        save_template(path, template)
    with run_server(made, tmp_path_factory.mktemp("dialects-server"), {}) as running:
        begins = dict(zip(("small", "large"), BEGINS[request.param], strict=True))
        yield Pair(running, {"small": made.small, "large": made.large}, begins)


def streamed(client: Any, **fields: Any) -> Any:
    """(content, reasoning, calls, finish_reason) of a stream whose chunks have OpenAI's shapes."""
    content, reasoning, calls, reason = "", "", list[dict[str, Any]](), None
    for chunk in client.chat.completions.create(stream=True, **fields):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            for delta in choice.delta.tool_calls or ():
                if delta.index == len(calls):
                    assert delta.id
                    assert (delta.type, delta.function.arguments) == ("function", "")
                    calls.append({"id": delta.id, "name": delta.function.name, "arguments": ""})
                else:
                    assert delta.index == len(calls) - 1
                    assert (delta.id, delta.type, delta.function.name) == (None, None, None)
                    assert delta.function.arguments
                    calls[-1]["arguments"] += delta.function.arguments
            reason = choice.finish_reason or reason
    return content, reasoning, calls, reason


@pytest.mark.parametrize("model", ["small", "large"])
@pytest.mark.parametrize("choice", ["none", "auto", "required", NAMED, ALLOWED], ids=str)
def test_every_choice_is_answered_alike_whole_and_streamed(pair: Pair, model: str, choice: Any) -> None:
    with pair.client() as client:
        for seed, (parallel, form) in enumerate(product((True, False), FORMATS)):
            fields: dict[str, Any] = {"model": model, "messages": HI, "tools": TOOLS, "tool_choice": choice}
            fields |= {"parallel_tool_calls": parallel, "max_tokens": 160, "seed": seed, "temperature": 1.2}
            if form is not None:
                fields["response_format"] = form
            whole = client.chat.completions.create(**fields).choices[0]
            calls = whole.message.tool_calls or []
            content, _, deltas, reason = streamed(client, **fields)
            assert (content, reason) == (whole.message.content or "", whole.finish_reason)
            assert [(one["name"], one["arguments"]) for one in deltas] == [
                (call.function.name, call.function.arguments) for call in calls
            ]
            whole_calls = calls if reason == "tool_calls" else calls[:-1]
            for call in whole_calls:
                jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
            if choice == "none":
                assert not calls
            elif choice != "auto":
                assert calls
                assert content == ""
                names = {"weather"} if choice == NAMED else {"ping"} if choice == ALLOWED else set(SCHEMAS)
                assert {call.function.name for call in whole_calls} <= names
            if not parallel or choice == NAMED:
                assert len(calls) <= 1
            if calls:
                assert reason in ("tool_calls", "length")
            elif form is not None and reason == "stop":
                jsonschema.validate(json.loads(content), ANSWER)


@pytest.mark.parametrize("model", ["small", "large"])
def test_in_auto_a_model_that_begins_a_call_makes_it(pair: Pair, model: str) -> None:
    tokenizer = Tokenizer.from_folder(pair.folders[model])
    (token,) = tokenizer.encode(pair.begins[model])
    with pair.client() as client:
        fields: Any = {"model": model, "messages": HI, "tools": TOOLS, "parallel_tool_calls": False, "max_tokens": 100}
        biased = {**fields, "logit_bias": {str(token): 100}}
        content, _, calls, reason = streamed(client, **biased)
        assert (content, reason, len(calls)) == ("", "tool_calls", 1)
        jsonschema.validate(json.loads(calls[0]["arguments"]), SCHEMAS[calls[0]["name"]])
        # Without tools that is only text, and is shown as such.
        plain = client.chat.completions.create(
            model=model, messages=HI, max_tokens=2, logit_bias={str(token): 100}, temperature=0
        )
        assert plain.choices[0].message.content == pair.begins[model] * 2


@pytest.mark.parametrize("model", ["small", "large", "auto"])
def test_a_call_may_follow_thoughts_and_the_conversation_goes_on(pair: Pair, model: str) -> None:
    reasoning = {"structured_outputs": {"reasoning": {"until": "</think>", "max_tokens": 5}}}
    with pair.client() as client:
        fields: Any = {"model": model, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 120, "seed": 3}
        first = client.chat.completions.create(messages=HI, extra_body=reasoning, **fields).choices[0]
        assert first.finish_reason == "tool_calls"
        assert isinstance(first.message.reasoning, str)  # type: ignore[attr-defined]
        assert first.message.content is None
        (call,) = first.message.tool_calls or []
        content, thoughts, calls, _ = streamed(client, messages=HI, extra_body=reasoning, **fields)
        if model != "auto":
            assert (content, thoughts) == ("", first.message.reasoning)  # type: ignore[attr-defined]
            assert calls[0]["arguments"] == call.function.arguments
        turn = {"role": "assistant", "tool_calls": [call.to_dict()]}
        result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
        second = client.chat.completions.create(
            model=model,
            messages=[*HI, turn, result],
            tools=TOOLS,
            tool_choice="none",
            max_tokens=4,  # type: ignore[list-item]
        )
    assert second.usage is not None
    assert second.usage.prompt_tokens > 20
