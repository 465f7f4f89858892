"""Parser of the regular expressions that clients send: the regular subset of ECMA-262 (the dialect of JSON Schema).

Back-references are refused, since no automaton holds them, and inline flags. Everything else becomes a small tree over
code points, so that no backend's own reading of a pattern ever decides what it means.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_CODE_POINT: Final = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]


class RegexRefused(ValueError):
    """The pattern is malformed, no regular language, or too large; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Class:
    """One code point of `ranges` (inclusive) or of Unicode `properties` (`L`, `Script=Greek`); negated: any other."""

    ranges: Ranges
    negated: bool = False
    properties: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Repeat:
    """`node` at least `low` and at most `high` times; None is without end."""

    node: "Node"
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; without items it is the empty string."""

    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Alt:
    """One of several."""

    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Anchor:
    """`^` (start) or `$`: the edge of the whole text, never of a line."""

    start: bool


@dataclass(frozen=True, slots=True)
class Boundary:
    """`\\b`: a word character on one side alone; negated is `\\B`."""

    negated: bool


@dataclass(frozen=True, slots=True)
class Look:
    """`(?=…)` and `(?<=…)`: `node` matches from here on (ahead) or up to here; negated: it does not."""

    node: "Node"
    ahead: bool
    negated: bool


Node = Class | Repeat | Seq | Alt | Anchor | Boundary | Look

DIGIT: Final[Ranges] = ((0x30, 0x39),)
WORD: Final[Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Final[Ranges] = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
LINE_ENDS: Final[Ranges] = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
ANY: Final = Class((), negated=True)

_CLASS_ESCAPES: Final = {
    "d": Class(DIGIT), "D": Class(DIGIT, negated=True), "w": Class(WORD), "W": Class(WORD, negated=True),
    "s": Class(SPACE), "S": Class(SPACE, negated=True),
}  # fmt: skip
_CONTROL_ESCAPES: Final = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
_COUNT: Final = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")
_BLANK_COUNT: Final = re.compile(r"\{(?=[^}]*\s)(?=[^}]*\d)\s*\d*\s*(?:,\s*\d*\s*)?\}")  # engines disagree about these
_PROPERTY: Final = re.compile(r"\{(\^?)([A-Za-z_]+(?:=[A-Za-z_]+)?)\}")


def complement(ranges: Ranges) -> Ranges:
    """The code points outside sorted or unsorted `ranges`."""
    out, low = [], 0
    for first, last in merge(ranges):
        if first > low:
            out.append((low, first - 1))
        low = last + 1
    if low <= MAX_CODE_POINT:
        out.append((low, MAX_CODE_POINT))
    return tuple(out)


def merge(ranges: Ranges) -> Ranges:
    """The same code points as sorted ranges that neither overlap nor touch."""
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


def nodes(node: Node) -> Iterator[Node]:
    """`node` and all nodes inside it."""
    stack = [node]
    while stack:
        inner = stack.pop()
        yield inner
        if isinstance(inner, Repeat | Look):
            stack.append(inner.node)
        elif isinstance(inner, Seq | Alt):
            stack.extend(inner.items)


def parse(pattern: str) -> Node:
    """The tree of `pattern`. Raises RegexRefused, also for patterns nested more than 64 groups deep."""
    parser = _Parser(pattern)
    node = parser.alternation(0)
    if parser.at < len(pattern):
        raise RegexRefused("has a `)` without its `(`: escape it as `\\)`")
    return node


class _Parser:
    """Recursive descent over one pattern; `at` is the next character."""

    def __init__(self, pattern: str) -> None:
        self.text, self.at = pattern, 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise RegexRefused("ends too early")
        self.at += 1
        return char

    def alternation(self, depth: int) -> Node:
        if depth > 64:
            raise RegexRefused("nests groups more than 64 deep: flatten it")
        branches = [self.sequence(depth)]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence(depth))
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def sequence(self, depth: int) -> Node:
        items: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            items.append(self.quantified(self.atom(depth)))
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def quantified(self, node: Node) -> Node:
        char = self.peek()
        if char in ("*", "+", "?"):
            self.at += 1
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char == "{" and (match := _COUNT.match(self.text, self.at)):
            self.at = match.end()
            if len(match[1]) > 9 or len(match[3] or "") > 9:
                raise RegexRefused(f"counts a repetition beyond any limit: `{match[0]}`")
            low = int(match[1])
            high = low if match[2] is None else int(match[3]) if match[3] else None
            if high is not None and high < low:
                raise RegexRefused(f"counts backwards: `{match[0]}`")
        else:
            return node
        if isinstance(node, Anchor | Boundary | Look):
            raise RegexRefused("repeats an anchor, a word boundary or a look-around: put the repetition elsewhere")
        if self.peek() == "?":
            self.at += 1  # a lazy quantifier: the same language
        if self.peek() in ("*", "+", "?") or _COUNT.match(self.text, self.at):
            raise RegexRefused("has two quantifiers in a row: put the first into a group")
        return Repeat(node, low, high)

    def atom(self, depth: int) -> Node:
        char = self.take()
        match char:
            case "^" | "$":
                return Anchor(char == "^")
            case ".":
                return Class(LINE_ENDS, negated=True)
            case "(":
                return self.group(depth)
            case "[":
                return self.bracket()
            case "\\" if self.peek() in ("b", "B"):
                return Boundary(self.take() == "B")
            case "\\":
                return self.escape(in_class=False)
            case "*" | "+" | "?":
                raise RegexRefused(f"has a quantifier `{char}` with nothing before it")
            case "{" if _COUNT.match(self.text, self.at - 1):
                raise RegexRefused("has a counted repetition with nothing before it")
            case "{" if match := _BLANK_COUNT.match(self.text, self.at - 1):
                raise RegexRefused(f"has blanks in a count, `{match[0]}`: leave them out, or escape the brace")
        return _one(ord(char))

    def group(self, depth: int) -> Node:
        look: str | None = None
        if self.peek() == "?":
            if self.text.startswith("?:", self.at):
                self.at += 2
            elif match := re.compile(r"\?<?[=!]").match(self.text, self.at):
                look = match[0]
                self.at = match.end()
            elif match := re.compile(r"\?<([A-Za-z_$][\w$]*)>").match(self.text, self.at):
                self.at = match.end()
            else:
                raise RegexRefused("uses an inline flag or an unknown `(?…)` group: spell both cases out")
        node = self.alternation(depth + 1)
        if self.take_or_empty() != ")":
            raise RegexRefused("has a `(` without its `)`")
        if look is not None:
            return Look(node, ahead="<" not in look, negated=look.endswith("!"))
        # A group around an anchor may be repeated, the anchor itself may not.
        return Seq((node,)) if isinstance(node, Anchor | Boundary | Look) else node

    def take_or_empty(self) -> str:
        char = self.peek()
        self.at += len(char)
        return char

    def escape(self, *, in_class: bool) -> Class:
        char = self.take()
        if char in _CLASS_ESCAPES:
            return _CLASS_ESCAPES[char]
        if char in _CONTROL_ESCAPES:
            return _one(_CONTROL_ESCAPES[char])
        if char in "pP":
            match = _PROPERTY.match(self.text, self.at)
            if match is None:
                raise RegexRefused("has a malformed Unicode property: write `\\p{L}`")
            self.at = match.end()
            return Class((), properties=((match[2], (char == "P") != bool(match[1])),))
        if char == "b" and in_class:
            return _one(0x08)
        if char == "0" and not self.peek().isdigit():
            return _one(0)
        if char.isdigit() or (char == "k" and self.peek() == "<"):
            raise RegexRefused("uses a back-reference, which no automaton holds: spell the repetition out")
        if char == "x":
            return _one(self.hexadecimal(2))
        if char == "u":
            return _one(self.unicode_escape())
        if char == "c":
            letter = self.take()
            if not (letter.isascii() and letter.isalpha()):
                raise RegexRefused("has a malformed `\\c` escape")
            return _one(ord(letter) % 32)
        if char.isascii() and char.isalnum():
            raise RegexRefused(f"has an unknown escape `\\{char}`")
        return _one(ord(char))

    def hexadecimal(self, digits: int) -> int:
        text = self.text[self.at : self.at + digits]
        if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", text):
            raise RegexRefused("has a malformed hexadecimal escape")
        self.at += digits
        return int(text, 16)

    def unicode_escape(self) -> int:
        if match := re.compile(r"\{([0-9a-fA-F]{1,6})\}").match(self.text, self.at):
            self.at = match.end()
            code = int(match[1], 16)
        else:
            code = self.hexadecimal(4)
            if 0xD800 <= code < 0xDC00 and self.text.startswith("\\u", self.at):
                self.at += 2
                low = self.hexadecimal(4)
                if not 0xDC00 <= low < 0xE000:
                    raise RegexRefused("has a surrogate without its partner")
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        if code > MAX_CODE_POINT:
            raise RegexRefused("names a code point beyond Unicode")
        return code

    def bracket(self) -> Class:
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        properties: list[tuple[str, bool]] = []
        while (char := self.take()) != "]":
            low = self.class_member(char)
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.class_member(self.take())
                if not (_is_single(low) and _is_single(high)):
                    raise RegexRefused("has a range in `[…]` that begins or ends with a class")
                if low.ranges[0][0] > high.ranges[0][0]:
                    raise RegexRefused("has a range in `[…]` that runs backwards")
                ranges.append((low.ranges[0][0], high.ranges[0][0]))
            else:
                ranges += complement(low.ranges) if low.negated else low.ranges
                properties += low.properties
        if not ranges and not properties and not negated:
            raise RegexRefused("has an empty class `[]`, which matches nothing")
        return Class(merge(tuple(ranges)), negated, tuple(properties))

    def class_member(self, char: str) -> Class:
        return self.escape(in_class=True) if char == "\\" else _one(ord(char))


def _one(code: int) -> Class:
    return Class(((code, code),))


def _is_single(node: Class) -> bool:
    return len(node.ranges) == 1 and node.ranges[0][0] == node.ranges[0][1] and not node.negated and not node.properties
