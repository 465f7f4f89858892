"""The agent of agent.py with pydantic-ai, which brings the loop, the schemas and the checks.

python examples/agent_pydantic_ai.py --base-url http://127.0.0.1:8000/v1 --model large "What is 20 % of 84.50?"
"""

import argparse
import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field
from pydantic_ai import Agent, ModelSettings, RunContext, ToolChoice, ToolFailed, UsageLimits
from pydantic_ai.messages import ModelMessage, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def percentage(share: float, amount: float) -> float:
    """Share percent of an amount."""
    return round(share * amount / 100, 2)


def add_days(day: date, days: Annotated[int, Field(ge=-36500, le=36500)]) -> date:
    """The date some days after a date, or before it if days is negative."""
    try:
        return day + timedelta(days)
    except OverflowError as error:
        raise ToolFailed(f"There is no such date: {error}") from error


def settings(max_turns: int, must_call: bool, parallel: bool) -> Callable[[RunContext[None]], ModelSettings]:
    """Greedy answers, of which the last may not call, so that there is always an end.

    must_call: the first has to. parallel: an answer may make several calls.
    """

    def of_step(context: RunContext[None]) -> ModelSettings:
        if context.run_step >= max_turns:
            return ModelSettings(temperature=0, tool_choice="none")
        choice: ToolChoice = "required" if must_call and context.run_step == 1 else "auto"
        return ModelSettings(temperature=0, tool_choice=choice, parallel_tool_calls=parallel)

    return of_step


async def run(
    base_url: str,
    api_key: str,
    model: str,
    question: str,
    *,
    max_turns: int = 6,
    must_call: bool = False,
    parallel: bool = True,
) -> list[ModelMessage]:
    """The whole conversation; the last message is the answer. max_turns: answers of the model."""
    async with OpenAIProvider(base_url=base_url, api_key=api_key) as provider:
        agent = Agent(
            OpenAIChatModel(model, provider=provider),
            tools=[percentage, add_days],
            retries=max_turns,  # arguments that pydantic refuses, such as a year 0, go back to the model
            model_settings=settings(max_turns, must_call, parallel),
        )
        done = await agent.run(question, usage_limits=UsageLimits(request_limit=max_turns))
    return done.all_messages()


def show(message: ModelMessage) -> list[str]:
    """One message as lines."""
    lines = []
    for part in message.parts:
        match part:
            case UserPromptPart(content=str(text)):
                lines.append(f"     user: {text}")
            case ToolCallPart():
                lines.append(f"assistant: {part.tool_name}({part.args_as_json_str()})")
            case ToolReturnPart():
                lines.append(f"     tool: {part.model_response_str()}")
            case RetryPromptPart():
                lines.append(f"     tool: {part.model_response()}")
            case TextPart():
                lines.append(f"assistant: {part.content}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Ask one question and print the conversation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("question")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none-needed-on-loopback")
    parser.add_argument("--model", default="large")
    parser.add_argument("--max-turns", type=int, default=6, help="answers of the model")
    parser.add_argument("--must-call", action="store_true", help="the first answer has to be a call")
    parser.add_argument("--one-call-at-a-time", action="store_true", help="no answer makes several calls")
    given = parser.parse_args(arguments)
    messages = asyncio.run(
        run(
            given.base_url,
            given.api_key,
            given.model,
            given.question,
            max_turns=given.max_turns,
            must_call=given.must_call,
            parallel=not given.one_call_at_a_time,
        )
    )
    print("\n".join(line for message in messages for line in show(message)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
