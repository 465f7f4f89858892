"""Reads Lark grammars for the second opinion on answers: as grammars of characters, without a lexer.

What a lexer makes of a grammar is a part of the language that is read here, so an answer that is not in it is wrong.
For the same reason a class such as `\\w`, of which engines differ outside of ASCII, holds every other character here.
"""

import re
from typing import Final

from grammars.context_free import Chars, Either, Node, Ref, Repeat, Row, literal
from grammars.ebnf import Unreadable
from grammars.expression_reader import read_expression

_TOKENS: Final = re.compile(
    r"""(?P<blank>(?:\s|//[^\n]*|\#[^\n]*)+)
    |(?P<rule>(?m:^)[?!]{0,2}[A-Za-z_]\w*(?:\.-?\d+)?\s*:)
    |(?P<alias>->\s*\w+)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<text>"(?:\\.|[^"\\\n])*"i?)
    |(?P<expression>/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/[a-z]*)
    |(?P<count>\{\s*\d+\s*(?:,\s*\d*\s*)?\}|~\s*\d+(?:\s*\.\.\s*\d+)?)
    |(?P<range>\.\.)
    |(?P<sign>[][()|*+?])""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"""\\(?:([nrt"'\\/])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4}))|([^\\])""", re.DOTALL)
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t"}


def read_lark(text: str) -> dict[str, Node]:
    """The rules and terminals by name, each referring to others among them. Raises Unreadable."""
    return _Reader("\n".join(line.lstrip() for line in text.splitlines())).rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text):
            found = _TOKENS.match(text, place)
            if found is None:
                raise Unreadable(f"{text[place : place + 10]!r} at character {place}")
            if found.lastgroup not in ("blank", "alias"):
                self._tokens.append((str(found.lastgroup), found.group()))
            place = found.end()
        self._at = 0

    def rules(self) -> dict[str, Node]:
        """All rules and terminals."""
        rules: dict[str, Node] = {}
        while self._at < len(self._tokens):
            if self._kind() != "rule":
                raise Unreadable(f"no rule at token {self._at}")
            name = self._next().rstrip(":").strip().lstrip("?!").partition(".")[0]
            if name in rules:
                raise Unreadable(f"two rules called {name}")
            rules[name] = self._either()
        missing = [value for kind, value in self._tokens if kind == "name" and value not in rules]
        if missing or "start" not in rules:
            raise Unreadable(f"no rule called {missing[0] if missing else 'start'}")
        return rules

    def _kind(self) -> str | None:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else None

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _next_is(self, *signs: str) -> bool:
        return self._kind() == "sign" and self._tokens[self._at][1] in signs

    def _either(self) -> Node:
        options = [self._row()]
        while self._next_is("|"):
            self._at += 1
            options.append(self._row())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _row(self) -> Node:
        items: list[Node] = []
        while self._kind() in ("name", "text", "expression") or self._next_is("(", "["):
            items.append(self._counted(self._item()))
        return items[0] if len(items) == 1 else Row(tuple(items))

    def _item(self) -> Node:
        kind, value = self._kind(), self._next()
        match kind:
            case "name":
                return Ref(value)
            case "text":
                return self._text(value)
            case "expression":
                body, _, flags = value[1:].rpartition("/")
                if set(flags) - {"s"}:
                    raise Unreadable(f"the flags {flags}")
                return read_expression(body.replace("\\/", "/"), dot_is_any="s" in flags)
        node = self._either()
        if not self._next_is(")" if value == "(" else "]"):
            raise Unreadable(f"a group that does not end at token {self._at}")
        self._at += 1
        return node if value == "(" else Repeat(node, 0, 1)

    def _text(self, value: str) -> Node:
        text = _unescaped(value.removesuffix("i")[1:-1])
        if self._kind() == "range":
            self._at += 1
            if self._kind() != "text":
                raise Unreadable("a range without an end")
            high = _unescaped(self._next()[1:-1])
            if len(text) != 1 or len(high) != 1 or high < text:
                raise Unreadable(f"the range {text!r} to {high!r}")
            return Chars(((ord(text), ord(high)),))
        if not value.endswith("i"):
            return literal(text)
        if not text.isascii():
            raise Unreadable("upper and lower case outside of ASCII")
        # Of `k` and `s` there are other spellings outside of ASCII.
        rivals = {"k": (0x212A,), "s": (0x17F,)}
        return Row(
            tuple(
                Chars(tuple((c, c) for c in {ord(char.lower()), ord(char.upper()), *rivals.get(char.lower(), ())}))
                for char in text
            )
        )

    def _counted(self, item: Node) -> Node:
        while True:
            if self._kind() == "count":
                numbers = re.findall(r"\d+", found := self._next())
                is_open = "," in found and len(numbers) == 1
                item = Repeat(item, int(numbers[0]), None if is_open else int(numbers[-1]))
            elif self._next_is("*", "+", "?"):
                sign = self._next()
                item = Repeat(item, int(sign == "+"), 1 if sign == "?" else None)
            else:
                return item


def _unescaped(body: str) -> str:
    chars: list[str] = []
    place = 0
    while place < len(body):
        found = _ESCAPED.match(body, place)
        if found is None:
            raise Unreadable(f"the escape {body[place : place + 2]!r}")
        code = found[2] or found[3]
        if code is not None and 0xD800 <= int(code, 16) <= 0xDFFF:
            raise Unreadable(f"the code point {code}")
        chars.append(chr(int(code, 16)) if code else _CONTROLS.get(found[1] or "", found[1]) or found[4])
        place = found.end()
    return "".join(chars)
