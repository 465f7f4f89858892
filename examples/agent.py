"""A function-calling agent in a page: plain Python functions as tools, and the official OpenAI client.

    python examples/agent.py --base-url http://127.0.0.1:8000/v1 --model large "What is 20 % of 84.50?"

The model answers with calls, the calls' results go back to it, and so on until it answers with text.
"""

import argparse
import inspect
import json
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal

import openai
from pydantic import Field, TypeAdapter, ValidationError, validate_call

Tool = Callable[..., Any]
Unit = Literal["km", "miles"]


# ---- the tools: what the model reads is their names, docstrings and annotations --------------------------------------


def percentage(share: float, amount: float) -> float:
    """Share percent of an amount."""
    return round(share * amount / 100, 2)


def add_days(day: date, days: Annotated[int, Field(ge=-36500, le=36500)]) -> date:
    """The date some days after a date, or before it if days is negative."""
    return day + timedelta(days)


def convert_distance(value: float, unit: Unit, to_unit: Unit) -> float:
    """Convert a distance between kilometres and miles."""
    km = value if unit == "km" else value * 1.609344
    return round(km if to_unit == "km" else km / 1.609344, 3)


TOOLS: tuple[Tool, ...] = (percentage, add_days, convert_distance)


# ---- the agent -------------------------------------------------------------------------------------------------------


def definition(tool: Tool) -> dict[str, Any]:
    """A function as OpenAI's tools describe it: name, docstring, and the JSON Schema of its arguments."""
    arguments: Any = tool  # a function is as good as a type here: its parameters are an object's members
    parameters = TypeAdapter(arguments).json_schema()
    function = {"name": tool.__name__, "description": inspect.getdoc(tool) or "", "parameters": parameters}
    return {"type": "function", "function": function}


def result(tools: Sequence[Tool], name: str, arguments: str) -> str:
    """What a call returns, as text. An error is a result, too: the model may call again with other arguments.

    Against Pointsman unknown tools and arguments outside the schema can't happen; other servers let them through.
    """
    tool = next((tool for tool in tools if tool.__name__ == name), None)
    if tool is None:
        return f"error: there is no tool {name}"
    try:
        value = validate_call(tool)(**json.loads(arguments))
    except (ValidationError, ValueError, TypeError, ArithmeticError) as error:
        return f"error: {error}"
    return str(TypeAdapter(Any).dump_json(value).decode())


def run(
    client: openai.OpenAI,
    model: str,
    question: str,
    tools: Sequence[Tool] = TOOLS,
    *,
    max_turns: int = 6,
    must_call: bool = False,
    parallel: bool = True,
) -> list[dict[str, Any]]:
    """The whole conversation; the last message is the answer.

    max_turns: answers of the model, of which the last may not call, so that there is always an end. must_call: the
    first one has to. parallel: an answer may make several calls.
    """
    messages: list[Any] = [{"role": "user", "content": question}]
    definitions: list[Any] = [definition(tool) for tool in tools]
    for turn in range(1, max_turns + 1):
        choice: Any = "none" if turn == max_turns else "required" if must_call and turn == 1 else "auto"
        reply = client.chat.completions.create(
            model=model,
            messages=messages,
            tools=definitions,
            tool_choice=choice,
            parallel_tool_calls=parallel,
            temperature=0,
        )
        message = reply.choices[0].message
        messages.append(message.to_dict())
        calls = [call for call in message.tool_calls or () if call.type == "function"]
        if not calls:
            break
        for call in calls:
            content = result(tools, call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    return messages


def show(message: dict[str, Any]) -> str:
    """One message as a line."""
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in message.get("tool_calls") or ()]
    return f"{message['role']:>9}: {message.get('content') or ', '.join(calls)}"


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
    with openai.OpenAI(base_url=given.base_url, api_key=given.api_key) as client:
        messages = run(
            client,
            given.model,
            given.question,
            max_turns=given.max_turns,
            must_call=given.must_call,
            parallel=not given.one_call_at_a_time,
        )
    print("\n".join(map(show, messages)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
