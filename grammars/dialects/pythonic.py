"""Llama 3.2 and 4, pythonic: `[f(a=1), g(b="x")]`, Python calls with keyword arguments, or plain text."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from grammars.dialects.base import BaseDialect
from grammars.dialects.call_reader import add_fragment, read_whole_value
from grammars.dialects.dialect import ArgumentsDelta, Call, CallEvent, CallStarted, StreamParser, TextDelta
from grammars.dialects.python_rules import python_literal, shared_rules

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS: Final = {"True": "true", "False": "false", "None": "null"}


class Pythonic(BaseDialect):
    """Python calls in a list; see `python_rules.py` for what of a schema they can hold."""

    name = "pythonic"
    is_json = False

    def write(self, calls: Sequence[Call]) -> str:
        """Python's spelling. Arguments that are no JSON object stand as one string."""
        return "[" + ", ".join(f"{call.name}({_keywords(call.arguments)})" for call in calls) + "]"

    def calls(self, names: Sequence[str], *, parallel: bool, spaced: bool) -> str:
        """Lark rules for `calls`; `args_i` are written by `python_rules.py`."""
        more = " (comma call)*" if parallel else ""
        lines = [f'calls: "[" call{more} "]"', "call: " + " | ".join(f"call_{i}" for i in range(len(names)))]
        lines += [f'call_{i}: {json.dumps(name + "(")} args_{i} ")"' for i, name in enumerate(names)]
        space = " ?" if spaced else ""
        return "\n".join([*lines, f"comma: /,{space}/", f"colon: /:{space}/", *shared_rules()])

    def parse(self, text: str, *, after_text: bool = True) -> list[Call] | None:  # noqa: ARG002 - the protocol's
        """The calls of a whole answer, or None when it does not begin with `[`."""
        return _Reader(text).calls() if text.startswith("[") else None

    def stream(self, *, after_text: bool = True) -> StreamParser:  # noqa: ARG002 - the protocol's
        """A parser of one answer."""
        return _Parser()


def _keywords(arguments: str) -> str:
    try:
        given: Any = json.loads(arguments)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return ", ".join(f"{name}={python_literal(value)}" for name, value in given.items())


class _Reader:
    """Reads a whole answer by recursive descent, for the second opinion."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def calls(self) -> list[Call]:
        """The calls. Raises ValueError."""
        found: list[Call] = []
        self._take("[")
        while True:
            name = self._match(_NAME, "a name")
            self._take("(")
            members: list[str] = []
            while not self._has(")"):
                if members:
                    self._comma()
                key = self._match(_NAME, "a parameter")
                self._take("=")
                members.append(f"{json.dumps(key)}: {self._value(0)}")
            found.append(Call(name, "{" + ", ".join(members) + "}"))
            if self._has("]"):
                break
            self._comma()
        if self._at != len(self._text):
            raise ValueError(f"text follows call {len(found)}")
        return found

    def _value(self, depth: int) -> str:
        """The next value as JSON text."""
        if depth > 200:
            raise ValueError("a value nests too deep")
        if self._text.startswith('"', self._at):
            value, self._at = read_whole_value(self._text, self._at)
            return value
        for word, spelled in _WORDS.items():
            if self._has(word):
                return spelled
        if self._has("["):
            return "[" + ", ".join(self._items("]", depth, named=False)) + "]"
        if self._has("{"):
            return "{" + ", ".join(self._items("}", depth, named=True)) + "}"
        return self._match(_NUMBER, "a value")

    def _items(self, end: str, depth: int, *, named: bool) -> list[str]:
        items: list[str] = []
        while not self._has(end):
            if items:
                self._comma()
            key = ""
            if named:
                name, self._at = read_whole_value(self._text, self._at)
                self._take(":")
                self._has(" ")
                key = f"{name}: "
            items.append(key + self._value(depth + 1))
        return items

    def _comma(self) -> None:
        self._take(",")
        self._has(" ")

    def _has(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _take(self, text: str) -> None:
        if not self._has(text):
            raise ValueError(f"character {self._at} is no {text!r}")

    def _match(self, pattern: "re.Pattern[str]", what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"{what} is missing at character {self._at}")
        self._at = found.end()
        return found.group()


class _Parser:
    """Turns Python's spelling into JSON as it comes: each character is looked at once."""

    def __init__(self) -> None:
        self._is_text: bool | None = None
        self._n_calls = 0
        self._is_open = False  # inside the parentheses of a call
        self._word = ""  # a name, a parameter, or the beginning of a literal
        self._has_members = False
        self._depth = -1  # brackets open in a value; -1 outside of one
        self._is_in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> list[CallEvent]:
        """The events of the next characters; neighbouring fragments of one call are joined."""
        if not text:
            return []
        if self._is_text is None:
            self._is_text = not text.startswith("[")
            text = text if self._is_text else text[1:]
        if self._is_text:
            return [TextDelta(text)]
        events: list[CallEvent] = []
        for char in text:
            if self._is_in_string:
                self._string(char, events)
            elif self._depth >= 0:
                self._value(char, events)
            elif self._is_open:
                self._parameter(char, events)
            else:
                self._outside(char, events)
        return events

    def end(self) -> list[CallEvent]:
        """Nothing: every character was plain when it came."""
        return []

    def _outside(self, char: str, events: list[CallEvent]) -> None:
        if char == "(":
            events += [CallStarted(self._n_calls, self._word), ArgumentsDelta(self._n_calls, "{")]
            self._n_calls += 1
            self._word, self._is_open, self._has_members = "", True, False
        elif char not in ", ]\n":
            self._word += char

    def _parameter(self, char: str, events: list[CallEvent]) -> None:
        if char == "=":
            self._emit((", " if self._has_members else "") + json.dumps(self._word) + ": ", events)
            self._word, self._has_members, self._depth = "", True, 0
        elif char == ")":
            self._close(events)
        elif char not in ", \n":
            self._word += char

    def _value(self, char: str, events: list[CallEvent]) -> None:
        if char.isalpha() and (self._word or char in "TFN"):
            self._word += char
            if self._word in _WORDS:
                self._emit(_WORDS[self._word], events)
                self._word = ""
        elif char == '"':
            self._is_in_string = True
            self._emit(char, events)
        elif char == "," and self._depth == 0:
            self._depth = -1
        elif char == ")" and self._depth == 0:
            self._depth = -1
            self._close(events)
        elif char not in " \n":
            self._depth += (char in "[{") - (char in "]}")
            self._emit({",": ", ", ":": ": "}.get(char, char), events)

    def _string(self, char: str, events: list[CallEvent]) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == '"':
            self._is_in_string = False
        self._emit(char, events)

    def _close(self, events: list[CallEvent]) -> None:
        self._emit("}", events)
        self._is_open, self._word = False, ""

    def _emit(self, text: str, events: list[CallEvent]) -> None:
        add_fragment(events, self._n_calls - 1, text)
