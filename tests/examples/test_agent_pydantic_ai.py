"""pydantic-ai against the real server: its own loop runs and ends, and its calls are answered."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pydantic_ai import Agent, ToolOutput
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from examples import agent_pydantic_ai as agent
from tests.gateway.server import GatewayServer

ROOT = Path(__file__).parents[2]
QUESTION = "What is 20 % of 84.50?"
TOOLS: dict[str, Callable[..., Any]] = {"percentage": agent.percentage, "add_days": agent.add_days}


def calls(messages: list[ModelMessage]) -> list[ToolCallPart]:
    return [part for message in messages for part in message.parts if isinstance(part, ToolCallPart)]


@pytest.mark.parametrize("model", ["small", "large", "auto"])
@pytest.mark.parametrize(("max_turns", "is_parallel"), [(4, False), (2, True)])
async def test_the_loop_calls_answers_by_id_and_ends(
    bundled_server: GatewayServer, model: str, max_turns: int, is_parallel: bool
) -> None:
    url = f"{bundled_server.url}/v1"
    messages = await agent.run(url, "k", model, QUESTION, max_turns=max_turns, must_call=True, parallel=is_parallel)
    made = calls(messages)
    assert made
    answered = [
        part.tool_call_id
        for message in messages
        for part in message.parts
        if isinstance(part, ToolReturnPart | RetryPromptPart)
    ]
    assert [call.tool_call_id for call in made] == answered
    assert len(set(answered)) == len(answered)
    for call in made:
        names = set(TOOLS[call.tool_name].__annotations__) - {"return"}
        assert set(json.loads(call.args_as_json_str())) == names
    responses = [message for message in messages if isinstance(message, ModelResponse)]
    assert len(responses) <= max_turns
    assert responses[0].finish_reason == "tool_call"
    assert any(isinstance(part, TextPart) for part in responses[-1].parts)


async def test_the_last_turn_is_text_though_a_call_was_wanted(bundled_server: GatewayServer) -> None:
    messages = await agent.run(f"{bundled_server.url}/v1", "k", "small", QUESTION, max_turns=1)
    assert calls(messages) == []


class Share(pydantic.BaseModel):
    """A share of an amount."""

    percent: int = pydantic.Field(ge=0, le=100)
    unit: str = pydantic.Field(pattern="^(EUR|SEK)$")


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_output_type_is_a_tool_whose_arguments_validate(
    bundled_server: GatewayServer, is_streamed: bool
) -> None:
    async with OpenAIProvider(base_url=f"{bundled_server.url}/v1", api_key="k") as provider:
        model = OpenAIChatModel("small", provider=provider)
        asker = Agent(model, output_type=ToolOutput(Share), retries=0)  # the first answer has to be valid
        if is_streamed:
            async with asker.run_stream("20 percent, in EUR") as stream:
                found = await stream.get_output()
        else:
            found = (await asker.run("20 percent, in EUR")).output
    assert isinstance(found, Share)


def test_the_command_prints_the_conversation(bundled_server: GatewayServer) -> None:
    command = [sys.executable, "examples/agent_pydantic_ai.py", "--base-url", f"{bundled_server.url}/v1"]
    asked = [*command, "--model", "large", "--must-call", "--one-call-at-a-time", QUESTION]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"     user: {QUESTION}"
    assert any(line.startswith("     tool: ") for line in lines)


def test_a_date_that_is_none_is_told_to_the_model() -> None:
    with pytest.raises(agent.ToolFailed, match="no such date"):
        agent.add_days(agent.date.max, 1)


def test_settings_force_the_first_call_and_forbid_the_last() -> None:
    class Step:
        def __init__(self, number: int) -> None:
            self.run_step = number

    chosen = [agent.settings(3, True, True)(Step(n)).get("tool_choice") for n in (1, 2, 3)]  # type: ignore[arg-type]
    assert chosen == ["required", "auto", "none"]
