"""Tools for the tests of dialects, calls of them that are right and wrong, and how a stream of events adds up."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from grammars import ArgumentsDelta, Call, CallStarted, StreamParser, TextDelta, Tool
from grammars.dialects import DIALECTS

NAMES = tuple(dialect.name for dialect in DIALECTS)
WEATHER = Tool(
    "get_weather",
    "The weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "unit": {"enum": ["C", "F", None, True]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
NOTHING = Tool("ping")
NESTED = Tool(
    "book_2",
    "",
    {
        "type": "object",
        "properties": {
            "at": {"type": ["string", "null"]},
            "rooms": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"beds": {"type": "number"}, "quiet": {"type": "boolean"}},
                    "required": ["beds"],
                    "additionalProperties": False,
                },
                "maxItems": 3,
            },
            "notes": {},
        },
        "required": ["rooms"],
        "additionalProperties": False,
    },
)
TOOLS = (WEATHER, NOTHING, NESTED)

WRONG: tuple[tuple[str, Any], ...] = (
    ("get_weather", {}),
    ("get_weather", {"city": 1}),
    ("get_weather", {"city": "Rome", "days": 8}),
    ("get_weather", {"city": "Rome", "other": 1}),
    ("get_weather", {"city": "Rome", "unit": False}),
    ("get_weathe", {"city": "Rome"}),
    ("get_weather2", {"city": "Rome"}),
    ("unknown", {}),
    ("ping", {"a": 1}),
    ("book_2", {"rooms": [{"quiet": True}]}),
    ("book_2", {"rooms": [{"beds": 1}, {"beds": 1}, {"beds": 1}, {"beds": 1}]}),
    ("book_2", {"at": 3, "rooms": []}),
)
"""(name, arguments) that no tool takes."""

# What could be taken for the marks of a format, within a string.
_CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t")
_TEXT = st.text(_CHARACTERS, max_size=8) | st.sampled_from([
    '"}]}', "</tool_call>", "<tool_call>", "[TOOL_CALLS]", "[ARGS]{}", ")]", "f(a=1)", "\\", "'", "é☃🙂", "{",
])  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from([0.5, -1.25, 1e30]) | _TEXT,
    lambda value: st.lists(value, max_size=2) | st.dictionaries(_TEXT, value, max_size=2),
    max_leaves=4,
)


def _arguments(required: dict[str, Any], optional: dict[str, Any], order: list[str]) -> Any:
    made = st.fixed_dictionaries(required, optional=optional)
    return made.map(lambda found: {name: found[name] for name in order if name in found})


_ROOM = _arguments({"beds": st.integers(0, 9) | st.just(1.5)}, {"quiet": st.booleans()}, ["beds", "quiet"])
_GIVEN = {
    "get_weather": _arguments(
        {"city": _TEXT},
        {"days": st.integers(1, 7), "unit": st.sampled_from(["C", "F", None, True])},
        ["city", "days", "unit"],
    ),
    "ping": st.just({}),
    "book_2": _arguments(
        {"rooms": st.lists(_ROOM, max_size=3)}, {"at": st.none() | _TEXT, "notes": _JSON}, ["at", "rooms", "notes"]
    ),
}


def calls(most: int = 3) -> "st.SearchStrategy[list[tuple[str, Any]]]":
    """Right calls, as (name, arguments) with members in the order of the schema."""
    one = st.sampled_from(sorted(_GIVEN)).flatmap(lambda name: st.tuples(st.just(name), _GIVEN[name]))
    return st.lists(one, min_size=1, max_size=most)


def as_calls(given: "list[tuple[str, Any]]") -> list[Call]:
    """Calls as a dialect writes them."""
    return [Call(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in given]


def values(found: list[Call] | None) -> "list[tuple[str, Any]] | None":
    """(name, arguments) of what was read."""
    return None if found is None else [(call.name, json.loads(call.arguments)) for call in found]


def streamed(parser: StreamParser, text: str, cuts: list[int]) -> tuple[str, list[Call]]:
    """(text, calls) of a stream that was cut at these places; the order of the events is checked on the way."""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    events = [event for start, end in pairwise(edges) for event in parser.feed(text[start:end])]
    said, found = "", list[Call]()
    for event in [*events, *parser.end()]:
        match event:
            case TextDelta():
                assert not found, "text came behind a call"
                assert event.fragment
                said += event.fragment
            case CallStarted():
                assert event.index == len(found)
                found.append(Call(event.name, ""))
            case ArgumentsDelta():
                assert event.index == len(found) - 1
                found[-1] = Call(found[-1].name, found[-1].arguments + event.fragment)
    return said, found
