"""Reads calls out of one JSON text, driven by the JSON cursor: names when they are whole, arguments as they come."""

import json
import re
from typing import Final

from grammars.cursor import Event, JsonCursor
from grammars.dialects.dialect import ArgumentsDelta, Call, CallEvent, CallStarted

_NAME: Final = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"([^"\\]*)"\s*:\s*')
_END: Final = re.compile(r"\s*\}")
_DECODER: Final = json.JSONDecoder()


class CallReader:
    """The calls of one JSON text: a list of them under the members `at`, or a single one where `at` is None."""

    def __init__(self, at: tuple[str, ...] | None, arguments: str = "arguments", first: int = 0) -> None:
        """arguments: the member that holds them. first: the number of the first call in the whole answer."""
        self._at, self._arguments, self._first = at, arguments, first
        self._cursor = JsonCursor()
        self._numbers: dict[int, int] = {}  # of the calls whose names are known, by their place in the list
        self._early: dict[int, str] = {}  # arguments ahead of their name: an answer without a grammar
        self._reading: tuple[int, int] | None = None  # place and depth of the call that is being read

    @property
    def n_calls(self) -> int:
        """Calls whose names are known."""
        return len(self._numbers)

    @property
    def is_complete(self) -> bool:
        """Whether the JSON text has ended."""
        return self._cursor.is_complete

    def read(self, char: str, events: list[CallEvent]) -> None:
        """Take a character; neighbouring fragments of one call are joined in `events`."""
        before, was_in_string = self._cursor.path, self._cursor.is_in_string
        event = Event.NONE
        for byte in char.encode("utf-8", "surrogatepass"):
            event = self._cursor.advance(byte)
        place = self._place(before)
        if event is Event.VALUE_ENDED and was_in_string and place is not None and before[-1] == "name":
            self._numbers[place] = self._first + len(self._numbers)
            events.append(CallStarted(self._numbers[place], self._cursor.last_text))
            self._add(place, self._early.pop(place, ""), events)
        if event is Event.VALUE_STARTED and place is not None and before[-1] == self._arguments:
            self._reading = (place, len(before))
        if self._reading is None:
            return
        self._add(self._reading[0], char, events)
        if event in (Event.VALUE_ENDED, Event.TWO_VALUES_ENDED) and self._cursor.depth == self._reading[1]:
            self._reading = None

    def _place(self, path: tuple[str | int, ...]) -> int | None:
        """The place of the call whose member `path` leads to; None elsewhere."""
        if self._at is None:
            return 0 if len(path) == 1 and isinstance(path[0], str) else None
        n = len(self._at)
        place = path[n] if len(path) == n + 2 and path[:n] == self._at else None
        return place if isinstance(place, int) else None

    def _add(self, place: int, text: str, events: list[CallEvent]) -> None:
        if place not in self._numbers:
            self._early[place] = self._early.get(place, "") + text
        elif text:
            add_fragment(events, self._numbers[place], text)


def add_fragment(events: list[CallEvent], index: int, text: str) -> None:
    """Append to the arguments of a call, in the last event where that is the same call's."""
    last = events[-1] if events else None
    if isinstance(last, ArgumentsDelta) and last.index == index:
        events[-1] = ArgumentsDelta(index, last.fragment + text)
    else:
        events.append(ArgumentsDelta(index, text))


def joined(events: list[CallEvent]) -> list[Call] | None:
    """The calls of all events of an answer, None where there are none."""
    calls: list[Call] = []
    for event in events:
        match event:
            case CallStarted():
                calls.append(Call(event.name, ""))
            case ArgumentsDelta():
                calls[event.index] = Call(calls[event.index].name, calls[event.index].arguments + event.fragment)
    return calls or None


def read_whole_call(text: str, start: int, arguments: str = "arguments") -> tuple[Call, int]:
    """The call that is written as an object at `start`, name first, and where it ends. Raises ValueError."""
    found = _NAME.match(text, start)
    if found is None or found[2] != arguments:
        raise ValueError(f"no call begins at character {start}")
    _, end = read_whole_value(text, found.end())
    closed = _END.match(text, end)
    if closed is None:
        raise ValueError(f"the call at character {start} does not end after its arguments")
    return Call(str(json.loads(found[1])), text[found.end() : end]), closed.end()


def read_whole_value(text: str, start: int) -> tuple[str, int]:
    """The JSON text of the value at `start`, and where it ends. Raises ValueError."""
    try:
        _, end = _DECODER.raw_decode(text, start)
    except RecursionError as error:
        raise ValueError(f"the value at character {start} nests too deep") from error
    return text[start:end], int(end)
