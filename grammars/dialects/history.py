"""Earlier calls and their results as text, for chat templates that know neither."""

import json
from typing import Any

from grammars.dialects.dialect import Call, Dialect


def as_text(messages: list[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
    """The conversation with every call in the words of its assistant turn, and results in turns of the user.

    messages: in the form of Hugging Face chat templates. Neighbouring results share a turn, since many templates want
    users and assistants to take turns.
    """
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    was_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result:
            name = names.get(message.get("tool_call_id", ""), message.get("name", ""))
            text = dialect.result(name, message["content"])
            if was_result:
                turns[-1] = turns[-1] | {"content": f"{turns[-1]['content']}\n{text}"}
            else:
                turns.append({"role": "user", "content": text})
        elif calls := message.get("tool_calls"):
            names |= {call["id"]: call["function"]["name"] for call in calls}
            written = dialect.write([_call(call["function"], dialect) for call in calls])
            said = message["content"]
            content = f"{said}\n{written}" if said else written
            turns.append(
                {name: value for name, value in message.items() if name != "tool_calls"} | {"content": content}
            )
        else:
            turns.append(message)
        was_result = is_result
    return turns


def with_call_ids(messages: list[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
    """The conversation with the ids of calls in the form that the format's templates accept."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        turn = message
        if message["role"] == "tool":
            turn = message | {"tool_call_id": dialect.call_id(message["tool_call_id"])}
        elif calls := message.get("tool_calls"):
            turn = message | {"tool_calls": [call | {"id": dialect.call_id(call["id"])} for call in calls]}
        turns.append(turn)
    return turns


def _call(function: dict[str, Any], dialect: Dialect) -> Call:
    """Arguments that are no JSON object are shown as they are: the model wrote them once."""
    given = function["arguments"]
    if isinstance(given, str):
        return Call(function["name"], given)
    separators = (", ", ": ") if dialect.is_spaced else (",", ":")
    return Call(function["name"], json.dumps(given, ensure_ascii=False, separators=separators))
