"""From a client's regular expression to one for the whole text, written so that every backend reads it alike."""

from typing import Final

from grammars.regex_states import n_states
from grammars.regex_syntax import (
    ANY,
    Alt,
    Anchor,
    Boundary,
    Class,
    Node,
    RegexRefused,
    Repeat,
    Seq,
    complement,
    merge,
    nodes,
    parse,
)

MAX_PATTERN_CHARS: Final = 8192
MAX_REPEAT: Final = 10_000
MAX_EXPANDED: Final = 40_000
MAX_STATES: Final = 200
"""Limits of one pattern: its length, one counted repetition, and its states once every counted repetition is written
out; then the deterministic states of one that needs an explicit automaton."""


def search_pattern(pattern: str) -> str:
    """`pattern` as JSON Schema means it (it may match anywhere), as an expression for the whole text.

    The result has no anchors, only explicit code points, `(?:…)`, `|`, `*`, `+`, `?` and `{n,m}`: what Rust's,
    Python's and outlines-core's syntax share. Raises RegexRefused for what `regex_syntax` refuses, for an anchor that
    is not at an edge, and beyond the limits.
    """
    node = _parsed(pattern)
    if any(isinstance(inner, Boundary) for inner in nodes(node)):
        raise RegexRefused("uses a word boundary, which no backend holds inside JSON: spell its neighbours out")
    return _emit(_searched(node))


def full_pattern(pattern: str) -> str:
    """`pattern` anchored at both ends, in the same syntax; anchors at its edges are redundant and dropped.

    Word boundaries stay, in Rust's spelling `(?-u:\\b)`: only outlines-core reads them, and only where the automaton
    stays small. Raises RegexRefused.
    """
    node = _anchored(_parsed(pattern))
    if any(isinstance(inner, Boundary) for inner in nodes(node)) and n_states(node, MAX_STATES) > MAX_STATES:
        raise RegexRefused(f"has a word boundary in an automaton of more than {MAX_STATES} states: simplify it")
    return _emit(node)


def has_boundary(pattern: str) -> bool:
    """Whether the pattern holds `\\b` or `\\B`. Raises RegexRefused."""
    return any(isinstance(node, Boundary) for node in nodes(parse(pattern)))


def all_but(texts: list[str]) -> str:
    """An expression that matches every text except `texts`: the complement of their prefix tree."""
    return _emit(_outside(sorted(set(texts))))


def _outside(texts: list[str]) -> Node:
    by_first: dict[str, list[str]] = {}
    for text in texts:
        if text:
            by_first.setdefault(text[0], []).append(text[1:])
    firsts = tuple((ord(c), ord(c)) for c in by_first)
    branches: list[Node] = [Seq((Class(merge(firsts), negated=True), Repeat(ANY, 0, None)))]
    branches += [Seq((Class(((ord(c), ord(c)),)), _outside(rest))) for c, rest in by_first.items()]
    if "" not in texts:
        branches.append(Seq(()))
    return Alt(tuple(branches))


def _parsed(pattern: str) -> Node:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise RegexRefused(f"has {len(pattern)} characters: at most {MAX_PATTERN_CHARS} are allowed")
    node = parse(pattern)
    if _size(node) > MAX_EXPANDED:
        raise RegexRefused(f"grows beyond {MAX_EXPANDED} states: nest fewer counted repetitions")
    return node


def _size(node: Node) -> int:
    match node:
        case Repeat():
            if max(node.low, node.high or 0) > MAX_REPEAT:
                raise RegexRefused(f"repeats more than {MAX_REPEAT} times: use `*` or `+`, or a smaller count")
            return max(node.low, node.high or 1, 1) * _size(node.node)
        case Seq() | Alt():
            return 1 + sum(map(_size, node.items))
    return 1


def _has_anchor(node: Node) -> bool:
    return any(isinstance(inner, Anchor) for inner in nodes(node))


def _branches(node: Node) -> list[list[Node]]:
    """The alternatives of a node as flat sequences, with groups that hold anchors multiplied out."""
    match node:
        case Alt() if _has_anchor(node):
            return [branch for item in node.items for branch in _branches(item)]
        case Seq():
            out: list[list[Node]] = [[]]
            for item in node.items:
                tails = _branches(item) if _has_anchor(item) else [[item]]
                out = [head + tail for head in out for tail in tails]
                if len(out) > 64:
                    raise RegexRefused(
                        "has too many alternatives with anchors inside: put the anchors outside the groups"
                    )
            return out
    return [[node]]


def _edges(items: list[Node]) -> tuple[bool, list[Node], bool]:
    """Strip anchors at the edges: (anchored at the start, the rest, anchored at the end)."""
    start = end = False
    while items and items[0] == Anchor(True):
        items, start = items[1:], True
    while items and items[-1] == Anchor(False):
        items, end = items[:-1], True
    # `^$` leaves `$` or `^` behind where the other edge is empty: an anchor at its own edge of the empty text is true.
    if any(map(_has_anchor, items)):
        raise RegexRefused("has an anchor that is not at its edge, so nothing or something odd would match: remove it")
    return start, items, end


def _searched(node: Node) -> Node:
    branches: list[Node] = []
    free = Repeat(ANY, 0, None)
    for items in _branches(node):
        start, body, end = _edges(items)
        branches.append(Seq((*(() if start else (free,)), *body, *(() if end else (free,)))))
    return branches[0] if len(branches) == 1 else Alt(tuple(branches))


def _anchored(node: Node) -> Node:
    branches: list[Node] = [Seq(tuple(_edges(items)[1])) for items in _branches(node)]
    return branches[0] if len(branches) == 1 else Alt(tuple(branches))


def _emit(node: Node) -> str:
    match node:
        case Class():
            return _emit_class(node)
        case Repeat():
            inner = _emit(node.node)
            atom = inner if isinstance(node.node, Class) else f"(?:{inner})"
            match node.low, node.high:
                case 0, None:
                    return atom + "*"
                case 1, None:
                    return atom + "+"
                case 0, 1:
                    return atom + "?"
                case low, None:
                    return f"{atom}{{{low},}}"
                case low, high:
                    return f"{atom}{{{low},{high}}}" if low != high else f"{atom}{{{low}}}"
        case Seq():
            return "".join(f"(?:{_emit(item)})" if isinstance(item, Alt) else _emit(item) for item in node.items)
        case Alt():
            return "|".join(f"(?:{_emit(item)})" for item in node.items)
        case Boundary():
            return r"(?-u:\B)" if node.negated else r"(?-u:\b)"
    raise RegexRefused("has an anchor that is not at its edge")


def _emit_class(node: Class) -> str:
    if node.properties:
        members = "".join(f"\\{'P' if negated else 'p'}{{{name}}}" for name, negated in node.properties)
        return f"[{'^' if node.negated else ''}{members}{_emit_ranges(node.ranges)}]"
    ranges = complement(node.ranges) if node.negated else merge(node.ranges)
    if ranges == ((0, 0x10FFFF),):
        return r"[\s\S]"
    scalars = _without_surrogates(ranges)
    if not scalars:
        raise RegexRefused("matches only lone surrogates, which no UTF-8 text holds")
    if len(scalars) == 1 and scalars[0][0] == scalars[0][1]:
        return _emit_char(scalars[0][0])
    outside = complement(scalars)
    if len(_without_surrogates(outside)) < len(scalars) and node.negated:
        return f"[^{_emit_ranges(_without_surrogates(outside))}]"
    return f"[{_emit_ranges(scalars)}]"


def _without_surrogates(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    out = []
    for low, high in ranges:
        if low <= 0xD7FF:
            out.append((low, min(high, 0xD7FF)))
        if high >= 0xE000:
            out.append((max(low, 0xE000), high))
    return tuple(out)


def _emit_ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(_emit_char(a) if a == b else f"{_emit_char(a)}-{_emit_char(b)}" for a, b in ranges)


def _emit_char(code: int) -> str:
    char = chr(code)
    if not char.isascii() or char.isalnum() or char in " _":
        return char
    return "\\" + char if char.isprintable() else f"\\x{code:02X}"
