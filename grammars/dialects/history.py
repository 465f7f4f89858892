"""Earlier calls and their results in the form that a chat template takes; as text, for one that knows neither."""

import json
from itertools import groupby
from typing import Any

from grammars.dialects.dialect import Call, Dialect


def with_results_in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with the results behind each turn in the order of its calls, and named after them.

    messages: in the form of Hugging Face chat templates. Clients may answer calls in any order, and need not name them,
    while many templates show no ids. Results of unknown calls come behind the others.
    """
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    places: dict[str, int] = {}
    for are_results, group in groupby(messages, lambda message: bool(message["role"] == "tool")):
        found = list(group)
        if are_results:
            found = [_named(names.get(result["tool_call_id"]), result) for result in found]
            found.sort(key=lambda result: places.get(result["tool_call_id"], len(places)))
        else:
            names |= {call["id"]: call["function"]["name"] for turn in found for call in turn.get("tool_calls", ())}
            places = {call["id"]: place for place, call in enumerate(found[-1].get("tool_calls", ()))}
        turns += found
    return turns


def with_single_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with a turn for each call, its results behind it, for templates that take no more in one turn.

    messages: with the results in the order of their calls.
    """
    turns: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []  # turns of calls whose results have not been reached
    for message in messages:
        if message["role"] == "tool":
            ids = [turn["tool_calls"][0]["id"] for turn in waiting]
            n = ids.index(message["tool_call_id"]) + 1 if message["tool_call_id"] in ids else 0
            turns += [*waiting[:n], message]
            del waiting[:n]
            continue
        turns += waiting
        calls = message.get("tool_calls", [])
        waiting = [message | {"content": "", "tool_calls": [call]} for call in calls[1:]]
        turns.append(message | {"tool_calls": calls[:1]} if waiting else message)
    return turns + waiting


def as_text(messages: list[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
    """The conversation with every call in the words of its assistant turn, and results in turns of the user.

    messages: with the results in order. Neighbouring ones share a turn, since many templates want users and assistants
    to take turns.
    """
    turns: list[dict[str, Any]] = []
    was_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result:
            text = dialect.result(message.get("name", ""), message["content"])
            if was_result:
                turns[-1] = turns[-1] | {"content": f"{turns[-1]['content']}\n{text}"}
            else:
                turns.append({"role": "user", "content": text})
        elif calls := message.get("tool_calls"):
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


def _named(name: str | None, result: dict[str, Any]) -> dict[str, Any]:
    return result if name is None else result | {"name": name}


def _call(function: dict[str, Any], dialect: Dialect) -> Call:
    """Arguments that are no JSON object are shown as they are: the model wrote them once."""
    given = function["arguments"]
    if isinstance(given, str):
        return Call(function["name"], given)
    separators = (", ", ": ") if dialect.is_spaced else (",", ":")
    return Call(function["name"], json.dumps(given, ensure_ascii=False, separators=separators))
