"""Reads EBNF as xgrammar and llama.cpp write it, for the second opinion on answers: what it cannot read, it says so.

rule ::= "text" [a-z^] other (a | b)* c{2,3}   # comment
"""

import re
from typing import Final

from grammars.context_free import Chars, Either, Node, Ref, Repeat, Row, literal

_TOKENS: Final = re.compile(
    r"""(?P<blank>(?:[ \t\r\n]|\#[^\n]*)+)
    |(?P<rule>[A-Za-z_][\w.-]*)(?=(?:[ \t\r\n]|\#[^\n]*)*::=)
    |(?P<defines>::=)
    |(?P<name>[A-Za-z_][\w.-]*)
    |(?P<text>"(?:\\.|[^"\\\n])*")
    |(?P<chars>\[(?:\\.|[^\]\\\n])+\])
    |(?P<count>\{[ ]*\d+[ ]*(?:,[ ]*\d*[ ]*)?\})
    |(?P<sign>[()|*+?])""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(
    r"""\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nrt"'\\\]\[^-]))|([^\\])""", re.DOTALL
)
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t"}


class Unreadable(Exception):
    """The grammar holds what this reader does not know."""


def read_ebnf(text: str) -> dict[str, Node]:
    """The rules by name, each referring to others among them. Raises Unreadable."""
    return _Reader(text).rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text):
            found = _TOKENS.match(text, place)
            if found is None or text.startswith("(=", place):
                raise Unreadable(f"{text[place : place + 10]!r} at character {place}")
            if found.lastgroup != "blank":
                self._tokens.append((str(found.lastgroup), found.group()))
            place = found.end()
        self._at = 0

    def rules(self) -> dict[str, Node]:
        """All rules."""
        rules: dict[str, Node] = {}
        while self._kind() is not None:
            name = self._take("rule")
            self._take("defines")
            if name in rules:
                raise Unreadable(f"two rules called {name}")
            rules[name] = self._either()
        used = [value for kind, value in self._tokens if kind == "name"]
        missing = [name for name in used if name not in rules]
        if missing:
            raise Unreadable(f"no rule called {missing[0]}")
        return rules

    def _kind(self) -> str | None:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else None

    def _next_is(self, sign: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at] == ("sign", sign)

    def _take(self, kind: str) -> str:
        if self._kind() != kind:
            raise Unreadable(f"no {kind} at token {self._at}")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _either(self) -> Node:
        options = [self._row()]
        while self._next_is("|"):
            self._at += 1
            options.append(self._row())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _row(self) -> Node:
        items: list[Node] = []
        while self._kind() in ("name", "text", "chars") or self._next_is("("):
            items.append(self._counted(self._item()))
        if not items:
            raise Unreadable(f"nothing at token {self._at}")
        return items[0] if len(items) == 1 else Row(tuple(items))

    def _item(self) -> Node:
        kind, value = self._tokens[self._at]
        self._at += 1
        match kind:
            case "name":
                return Ref(value)
            case "text":
                return literal("".join(char for char, _ in _unescaped(value[1:-1])))
            case "chars":
                return _chars(value[1:-1])
        node = self._either()
        if not self._next_is(")"):
            raise Unreadable(f"a group that does not end at token {self._at}")
        self._at += 1
        return node

    def _counted(self, item: Node) -> Node:
        while True:
            if self._kind() == "count":
                least, comma, most = self._take("count")[1:-1].replace(" ", "").partition(",")
                item = Repeat(item, int(least), (int(most) if most else None) if comma else int(least))
            elif self._next_is("*") or self._next_is("+") or self._next_is("?"):
                sign = self._take("sign")
                item = Repeat(item, int(sign == "+"), 1 if sign == "?" else None)
            else:
                return item


def _chars(body: str) -> Chars:
    is_negated = body.startswith("^")
    chars = _unescaped(body[is_negated:])
    ranges: list[tuple[int, int]] = []
    place = 0
    while place < len(chars):
        low = chars[place][0]
        if place + 2 < len(chars) and chars[place + 1] == ("-", False):
            high = chars[place + 2][0]
            if high < low:
                raise Unreadable(f"the range {low}-{high}")
            ranges.append((ord(low), ord(high)))
            place += 3
        else:
            ranges.append((ord(low), ord(low)))
            place += 1
    if not ranges:
        raise Unreadable("an empty class")
    return Chars(tuple(ranges), is_negated)


def _unescaped(body: str) -> list[tuple[str, bool]]:
    """The characters, each with whether it was escaped."""
    chars: list[tuple[str, bool]] = []
    place = 0
    while place < len(body):
        found = _ESCAPED.match(body, place)
        if found is None:
            raise Unreadable(f"the escape {body[place : place + 2]!r}")
        code = found[1] or found[2] or found[3]
        if code is not None and (int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) <= 0xDFFF):
            raise Unreadable(f"the code point {code}")
        char = chr(int(code, 16)) if code is not None else _CONTROLS.get(found[4] or "", found[4]) or found[5]
        chars.append((char, found[5] is None))
        place = found.end()
    return chars
