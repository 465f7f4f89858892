"""Calls as a JSON list of `{"name": …, "arguments": {…}}`: the rules and the reader that both xLAM formats share."""

import json
from collections.abc import Sequence

from grammars.constraint import Tool
from grammars.cursor import Event, JsonCursor
from grammars.dialects.dialect import ArgumentsDelta, Call, CallEvent, CallStarted, StreamParser, TextDelta


def render_tools(tools: Sequence[Tool]) -> str:
    """The tools as a JSON list of name, description and parameters."""
    listed = [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters or {"type": "object", "properties": {}},
        }
        for tool in tools
    ]
    return json.dumps(listed, ensure_ascii=False)


def list_rules(names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
    """Lark rules for `call_list`: at least one call, each of a known name with its own arguments."""
    more = " (comma call)*" if parallel else ""
    lines = [f'call_list: "[" call{more} "]"', "call: " + " | ".join(f"call_{i}" for i in range(len(names)))]
    for i, name in enumerate(names):
        member = json.dumps(name)
        opening = json.dumps('{"name":' + member + ',"arguments":')
        if spaced:
            opening = " ".join(
                [json.dumps('{"name"'), "colon", json.dumps(member), "comma", json.dumps('"arguments"'), "colon"]
            )
        lines.append(f'call_{i}: {opening} args_{i} "}}"')
    if spaced:
        lines += ["comma: /, ?/", "colon: /: ?/"]
    elif parallel:
        lines.append('comma: ","')
    return "\n".join(lines)


class CallListParser:
    """Reads an answer: a list of calls under the path `prefix`, or text when it does not begin with `opening`."""

    def __init__(self, opening: str, prefix: tuple[str, ...]) -> None:
        self._opening, self._prefix = opening, prefix
        self._cursor = JsonCursor()
        self._is_text: bool | None = None
        self._numbers: dict[int, int] = {}  # of the calls whose names are known, by their place in the list
        self._early: dict[int, str] = {}  # arguments ahead of their name: an answer without a grammar
        self._reading: tuple[int, int] | None = None  # place and depth of the call that is being read

    def feed(self, text: str) -> list[CallEvent]:
        """The events of the next characters; neighbouring fragments of one call are joined."""
        if not text:
            return []
        if self._is_text is None:
            self._is_text = not text.startswith(self._opening)
        if self._is_text:
            return [TextDelta(text)]
        events: list[CallEvent] = []
        for char in text:
            self._read(char, events)
        return events

    def _read(self, char: str, events: list[CallEvent]) -> None:
        before, n, was_in_string = self._cursor.path, len(self._prefix), self._cursor.is_in_string
        event = Event.NONE
        for byte in char.encode("utf-8", "surrogatepass"):
            event = self._cursor.advance(byte)
        is_member = len(before) == n + 2 and before[:n] == self._prefix
        place = before[n] if is_member else None
        if event is Event.VALUE_ENDED and was_in_string and isinstance(place, int) and before[-1] == "name":
            self._numbers[place] = len(self._numbers)
            events.append(CallStarted(self._numbers[place], self._cursor.last_text))
            self._add(place, self._early.pop(place, ""), events)
        if event is Event.VALUE_STARTED and isinstance(place, int) and before[-1] == "arguments":
            self._reading = (place, len(before))
        if self._reading is None:
            return
        self._add(self._reading[0], char, events)
        if event in (Event.VALUE_ENDED, Event.TWO_VALUES_ENDED) and self._cursor.depth == self._reading[1]:
            self._reading = None

    def _add(self, place: int, text: str, events: list[CallEvent]) -> None:
        """Append to the arguments of a call, in the last event where that is the same call's."""
        if place not in self._numbers:
            self._early[place] = self._early.get(place, "") + text
            return
        last = events[-1] if events else None
        if isinstance(last, ArgumentsDelta) and last.index == self._numbers[place]:
            events[-1] = ArgumentsDelta(last.index, last.fragment + text)
        elif text:
            events.append(ArgumentsDelta(self._numbers[place], text))


def read_calls(parser: StreamParser, text: str) -> list[Call] | None:
    """The calls that a fresh parser finds in a whole answer, None for text."""
    calls: list[Call] = []
    for event in parser.feed(text):
        match event:
            case TextDelta():
                return None
            case CallStarted():
                calls.append(Call(event.name, ""))
            case ArgumentsDelta():
                calls[event.index] = Call(calls[event.index].name, calls[event.index].arguments + event.fragment)
    return calls
