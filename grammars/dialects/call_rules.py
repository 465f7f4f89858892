"""Lark rules of calls that are JSON objects, and how such calls are written: what several formats share."""

import json
from collections.abc import Sequence
from typing import Any

from grammars.constraint import Tool
from grammars.dialects.dialect import Call


def described(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Name, description and parameters of each tool."""
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
        }
        for tool in tools
    ]


def definitions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools in OpenAI's form, as chat templates read them."""
    return [{"type": "function", "function": one} for one in described(tools)]


def object_rules(names: Sequence[str], *, arguments: str, spaced: bool, before: str = "", after: str = "") -> str:
    """Lark rules for `call`: an object of a known name with its own arguments, between two fixed texts."""
    lines = ["call: " + " | ".join(f"call_{i}" for i in range(len(names)))]
    for i, name in enumerate(names):
        member, key = json.dumps(name), json.dumps(arguments)
        opening = json.dumps(before + '{"name":' + member + "," + key + ":")
        if spaced:
            opening = " ".join([
                json.dumps(before + '{"name"'), "colon", json.dumps(member), "comma", json.dumps(key), "colon"
            ])  # fmt: skip
        lines.append(f"call_{i}: {opening} args_{i} {json.dumps('}' + after)}")
    return "\n".join(lines)


def separators(*, spaced: bool, parallel: bool) -> list[str]:
    """Lark rules for `comma` and `colon`, as far as they are used."""
    if spaced:
        return ["comma: /, ?/", "colon: /: ?/"]
    return ['comma: ","'] if parallel else []


def list_rules(names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
    """Lark rules for `call_list`: at least one call, each of a known name with its own arguments."""
    more = " (comma call)*" if parallel else ""
    return "\n".join([
        f'call_list: "[" call{more} "]"',
        object_rules(names, arguments="arguments", spaced=spaced),
        *separators(spaced=spaced, parallel=parallel),
    ])  # fmt: skip


def written(call: Call, *, arguments: str = "arguments", spaced: bool = True) -> str:
    """A call as an object; its arguments stay as they are."""
    comma, colon = (", ", ": ") if spaced else (",", ":")
    name, key = json.dumps(call.name, ensure_ascii=False), json.dumps(arguments)
    return f'{{"name"{colon}{name}{comma}{key}{colon}{call.arguments}}}'
