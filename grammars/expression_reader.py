"""Reads the regular expressions of Lark grammars as grammars of characters, for the second opinion on answers.

`\\w`, `\\d` and `\\s` hold every character outside of ASCII: engines differ there, and a right answer must never fail.
"""

import re
from typing import Final

from grammars.context_free import Chars, Either, Node, Repeat, Row
from grammars.ebnf import Unreadable

_WORD: Final = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_DIGIT: Final = ((0x30, 0x39),)
_SPACE: Final = ((0x09, 0x0D), (0x20, 0x20))
_CLASSES: Final = {"w": _WORD, "d": _DIGIT, "s": _SPACE}
_BEYOND: Final = (0x80, 0x10FFFF)
_ANY: Final = (0, 0x10FFFF)
_SIMPLE: Final = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "0": 0}
_COUNT: Final = re.compile(r"\{(\d+)(,?)(\d*)\}")
_CODE: Final = re.compile(r"x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")

Ranges = tuple[tuple[int, int], ...]


def read_expression(text: str, *, dot_is_any: bool = False) -> Node:
    """The expression, for a whole text. Raises Unreadable for flags, anchors, assertions, properties, references."""
    return _Expression(text, dot_is_any).whole()


class _Expression:
    def __init__(self, text: str, dot_is_any: bool) -> None:
        self._text, self._dot_is_any, self._at = text, dot_is_any, 0

    def whole(self) -> Node:
        """All of it."""
        node = self._either()
        if self._at < len(self._text):
            raise Unreadable(f"the expression at {self._at}")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _either(self) -> Node:
        options = [self._row()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._row())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _row(self) -> Node:
        items: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._counted(self._item()))
        return items[0] if len(items) == 1 else Row(tuple(items))

    def _counted(self, item: Node) -> Node:
        sign = self._peek()
        if sign in ("*", "+", "?") and sign:
            self._at += 1
            item = Repeat(item, int(sign == "+"), 1 if sign == "?" else None)
        elif sign == "{":
            found = _COUNT.match(self._text, self._at)
            if found is None:
                raise Unreadable(f"the expression at {self._at}")
            self._at = found.end()
            most = int(found[3]) if found[3] else None if found[2] else int(found[1])
            item = Repeat(item, int(found[1]), most)
        else:
            return item
        if self._peek() == "?":
            self._at += 1  # lazy: the same texts
        if self._peek() in ("*", "+", "{") and self._peek():
            raise Unreadable(f"the expression at {self._at}")
        return item

    def _item(self) -> Node:
        char = self._peek()
        self._at += 1
        match char:
            case "(":
                if self._peek() == "?":
                    if not self._text.startswith("?:", self._at):
                        raise Unreadable(f"the group at {self._at}")
                    self._at += 2
                node = self._either()
                if self._peek() != ")":
                    raise Unreadable(f"the group at {self._at}")
                self._at += 1
                return node
            case "[":
                return self._class()
            case ".":
                return Chars((_ANY,)) if self._dot_is_any else Chars(((0x0A, 0x0A),), is_negated=True)
            case "\\":
                return Chars(self._escape(is_negated=False)[0])
        if char in "^$*+?{}])":
            raise Unreadable(f"{char!r} in an expression")
        return Chars(((ord(char), ord(char)),))

    def _class(self) -> Chars:
        is_negated = self._peek() == "^"
        self._at += is_negated
        if self._peek() == "]":
            raise Unreadable("an empty class")
        ranges: list[tuple[int, int]] = []
        while self._peek() != "]":
            found, is_set = self._member(is_negated)
            if not is_set and self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high, is_set = self._member(is_negated)
                if is_set or high[0][0] < found[0][0]:
                    raise Unreadable(f"the range at {self._at}")
                found = ((found[0][0], high[0][0]),)
            ranges += found
        self._at += 1
        return Chars(tuple(ranges), is_negated)

    def _member(self, is_negated: bool) -> tuple[Ranges, bool]:
        char = self._peek()
        self._at += 1
        if char == "\\":
            return self._escape(is_negated=is_negated)
        # Rust's regular expressions have set operations and classes within classes.
        if char in ("", "[") or (char in "&~-" and self._peek() == char):
            raise Unreadable(f"the class at {self._at}")
        return ((ord(char), ord(char)),), False

    def _escape(self, *, is_negated: bool) -> tuple[Ranges, bool]:
        """The characters of an escape, no fewer than any engine reads (in a negated class no more), and whether it may
        be several."""
        char = self._peek()
        if char.lower() in _CLASSES and char:
            self._at += 1
            held = _CLASSES[char.lower()]
            if char.isupper():
                held = _others(held)
            return (held if is_negated else (*held, _BEYOND)), True
        code = _CODE.match(self._text, self._at)
        if code is not None:
            self._at = code.end()
            value = int(code[1] or code[2] or code[3] or code[4], 16)
            if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
                raise Unreadable(f"the code point {value:X}")
            return ((value, value),), False
        self._at += 1
        if char in _SIMPLE and char:
            return ((_SIMPLE[char], _SIMPLE[char]),), False
        if not char or char.isalnum() or not char.isascii():
            raise Unreadable(f"the escape {char!r}")
        return ((ord(char), ord(char)),), False


def _others(ranges: Ranges) -> Ranges:
    """The other characters of ASCII."""
    held = {code for low, high in ranges for code in range(low, high + 1)}
    return tuple((code, code) for code in range(0x80) if code not in held)
