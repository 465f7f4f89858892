"""The agent's loop against the real server: what the protocol promises holds, whatever the models know."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any, Literal

import jsonschema
import openai
import pytest

from examples import agent
from tests.gateway.server import GatewayServer

QUESTIONS = ("What is 20 % of 84.50?", "Which day is 30 days after 2031-02-15?", "How many km are 12 miles?")
OPTIONS = ("--must-call", "--one-call-at-a-time", "--max-turns", "3")
ROOT = Path(__file__).parents[2]


def calls_in(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    return calls


def check(messages: list[dict[str, Any]], tools: tuple[agent.Tool, ...], max_turns: int) -> None:
    """Roles alternate as they must, every call is answered by its id and in order, arguments follow the schemas."""
    schemas = {tool.__name__: agent.definition(tool)["function"]["parameters"] for tool in tools}
    assert messages[0]["role"] == "user"
    waiting = list[str]()
    for message in messages[1:]:
        if waiting:
            assert message["role"] == "tool"
            assert message["tool_call_id"] == waiting.pop(0)
            continue
        assert message["role"] == "assistant"
        for call in calls_in(message):
            arguments = json.loads(call["function"]["arguments"])
            jsonschema.validate(arguments, schemas[call["function"]["name"]])
            waiting.append(call["id"])
    seen = [call["id"] for message in messages for call in calls_in(message)]
    assert len(set(seen)) == len(seen)
    assert sum(message["role"] == "assistant" for message in messages) <= max_turns
    assert not waiting
    assert not calls_in(messages[-1])
    assert messages[-1]["role"] == "assistant"
    assert isinstance(messages[-1]["content"], str)


@pytest.mark.parametrize("model", ["small", "large", "auto"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_one_call_at_a_time_answers_by_id_and_ends(bundled_server: GatewayServer, model: str, question: str) -> None:
    with bundled_server.client() as client:
        messages = agent.run(client, model, question, max_turns=4, must_call=True, parallel=False)
    check(messages, agent.TOOLS, 4)
    assert [len(calls_in(message)) for message in messages if calls_in(message)] in ([1], [1, 1], [1, 1, 1])


@pytest.mark.parametrize("model", ["small", "large"])
def test_all_calls_of_an_answer_are_answered_in_order(bundled_server: GatewayServer, model: str) -> None:
    question = "Add 3 days to 2031-02-27, 4 days to 2031-03-01 and 5 days to 2031-04-30."
    with bundled_server.client() as client:
        messages = agent.run(client, model, question, (agent.add_days,), max_turns=2, must_call=True)
    check(messages, (agent.add_days,), 2)
    assert calls_in(messages[1])


def test_without_force_the_model_decides(bundled_server: GatewayServer) -> None:
    with bundled_server.client() as client:
        messages = agent.run(client, "large", QUESTIONS[0], max_turns=4, parallel=False)
    check(messages, agent.TOOLS, 4)


def test_a_single_turn_is_text(bundled_server: GatewayServer) -> None:
    with bundled_server.client() as client:
        messages = agent.run(client, "small", QUESTIONS[0], max_turns=1)
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert not calls_in(messages[1])


def test_the_turn_after_a_call_has_read_its_result(bundled_server: GatewayServer) -> None:
    told = list[Any]()

    def weigh(parcel: Literal["red", "blue"]) -> float:
        """Weigh a parcel."""
        told.append(parcel)
        return 2.5

    with bundled_server.client() as client:
        messages = agent.run(client, "large", "How heavy is the red parcel?", (weigh,), max_turns=2, must_call=True)
    check(messages, (weigh,), 2)
    asked = [json.loads(call["function"]["arguments"])["parcel"] for m in messages for call in calls_in(m)]
    assert told == asked
    assert {m["content"] for m in messages if m["role"] == "tool"} == {"2.5"}


def test_the_command_prints_the_conversation(bundled_server: GatewayServer) -> None:
    command = [sys.executable, "examples/agent.py", "--base-url", f"{bundled_server.url}/v1", "--model", "small"]
    done = subprocess.run([*command, *OPTIONS, QUESTIONS[0]], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"     user: {QUESTIONS[0]}"
    assert lines[1].startswith("assistant: ")
    assert any(line.startswith("     tool: ") for line in lines)


# ---- the tools -----------------------------------------------------------------------------------------------------


def test_a_definition_is_what_the_signature_says() -> None:
    function = agent.definition(agent.convert_distance)["function"]
    assert function["name"] == "convert_distance"
    assert function["description"] == "Convert a distance between kilometres and miles."
    assert function["parameters"]["required"] == ["value", "unit", "to_unit"]
    assert function["parameters"]["properties"]["unit"]["enum"] == ["km", "miles"]
    assert function["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("percentage", '{"share": 20, "amount": 84.5}', "16.9"),
        ("add_days", '{"day": "2031-02-27", "days": 3}', '"2031-03-02"'),
        ("convert_distance", '{"value": 12, "unit": "miles", "to_unit": "km"}', "19.312"),
        ("convert_distance", '{"value": 12, "unit": "feet", "to_unit": "km"}', "error: "),
        ("add_days", '{"day": "9999-12-31", "days": 1}', "error: "),
        ("add_days", '{"day": "2031-02-27"', "error: "),
        ("add_days", "[]", "error: "),
        ("format_disk", "{}", "error: there is no tool format_disk"),
    ],
)
def test_a_call_gives_its_result_or_its_error_as_text(name: str, arguments: str, said: str) -> None:
    text = agent.result(agent.TOOLS, name, arguments)
    assert text.startswith(said)
    assert said in ("error: ", text)


def test_an_optional_parameter_may_be_left_out() -> None:
    def remind(text: str, day: date | None = None) -> str:
        """Remind me."""
        return f"{text} on {day}"

    assert agent.definition(remind)["function"]["parameters"]["required"] == ["text"]
    assert agent.result([remind], "remind", '{"text": "tea"}') == '"tea on None"'


def test_the_clients_errors_are_not_swallowed(bundled_server: GatewayServer) -> None:
    with bundled_server.client() as client, pytest.raises(openai.NotFoundError):
        agent.run(client, "no-such-model", QUESTIONS[0])
