"""From a client's regular expression to one for the whole text, written so that every backend reads it alike."""

from itertools import takewhile
from typing import Final

from grammars import lookaround
from grammars.regex_syntax import (
    ANY,
    Alt,
    Anchor,
    Boundary,
    Class,
    Look,
    Node,
    RegexRefused,
    Repeat,
    Seq,
    merge,
    nodes,
    parse,
)
from grammars.regex_text import emit
from grammars.steps import Steps

MAX_PATTERN_CHARS: Final = 8192
MAX_REPEAT: Final = 10_000
MAX_EXPANDED: Final = 40_000
MAX_BRANCHES: Final = 64
"""Limits of one pattern: its length, one counted repetition, its states once every counted repetition is written out,
and the alternatives into which groups with anchors are multiplied out (beyond them an automaton does the same)."""
MAX_WHOLE: Final = 4096
"""From this length on, conditions that open an expression stay apart from it."""

_FREE: Final = Repeat(ANY, 0, None)


def search_pattern(pattern: str) -> str:
    """`pattern` as JSON Schema means it (it may match anywhere), as an expression for the whole text.

    The result is in the dialect of `regex_text.py`; look-around, word boundaries and anchors in the middle are turned
    into plain expressions (`lookaround.py`). Raises RegexRefused for what `regex_syntax` refuses, for what matches no
    text, and beyond the limits.
    """
    return _text([_searched(*_edges(items)) for items in _branches(_parsed(pattern))])


def search_patterns(pattern: str) -> tuple[str, ...]:
    """`search_pattern` as one or more expressions that a text must all match.

    Several only where look-ahead opens an anchored expression, as in `^(?=.*[a-z])(?=.*\\d).{8,}$`, and one for all of
    it would be long. Raises RegexRefused as `search_pattern` does, but together several may match nothing.
    """
    return _together([_edges(items) for items in _branches(_parsed(pattern))])


def full_patterns(pattern: str) -> tuple[str, ...]:
    """`full_pattern` as one or more expressions that a text must all match; see `search_patterns`."""
    return _together([(True, _edges(items)[1], True) for items in _branches(_parsed(pattern))])


def full_pattern(pattern: str) -> str:
    """`pattern` anchored at both ends, in the same dialect; anchors at its edges are redundant and dropped.

    Raises RegexRefused as `search_pattern` does.
    """
    return _text([Seq(tuple(_edges(items)[1])) for items in _branches(_parsed(pattern))])


def has_marks(pattern: str) -> bool:
    """Whether the pattern holds look-around or word boundaries. Raises RegexRefused."""
    return any(isinstance(node, Boundary | Look) for node in nodes(parse(pattern)))


def all_but(texts: list[str]) -> str:
    """An expression that matches every text except `texts`: the complement of their prefix tree."""
    return emit(_outside(sorted(set(texts))))


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
        case Look():
            return 1 + _size(node.node)
    return 1


def _searched(starts: bool, body: list[Node], ends: bool) -> Node:
    return Seq((*(() if starts else (_FREE,)), *body, *(() if ends else (_FREE,))))


def _together(branches: list[tuple[bool, list[Node], bool]]) -> tuple[str, ...]:
    nodes = [_searched(*branch) for branch in branches]
    starts, body, ends = branches[0]
    conditions = list(takewhile(_is_ahead, body))
    if len(branches) > 1 or not starts or not conditions:
        return (_text(nodes),)
    try:
        whole = _text(nodes)
        if len(whole) <= MAX_WHOLE:
            return (whole,)
    except RegexRefused as error:
        if lookaround.NO_TEXT in str(error):
            raise
    # At the start there is nothing to look back at: what lies ahead is a text of its own.
    rest = _searched(True, body[len(conditions) :], ends)
    steps = Steps()
    parts = [_text([node], steps) for node in (*(Seq((item, _FREE)) for item in conditions), rest)]
    return tuple(dict.fromkeys(parts))


def _is_ahead(node: Node) -> bool:
    return isinstance(node, Look) and node.ahead


def _text(branches: list[Node], steps: Steps | None = None) -> str:
    node = branches[0] if len(branches) == 1 else Alt(tuple(branches))
    return emit(node if lookaround.is_plain(node) else lookaround.plain(node, steps or Steps()))


def _has_anchor(node: Node) -> bool:
    """Whether an anchor stands in the expression, look-around aside: that is no edge of it."""
    return any(isinstance(mark, Anchor) for mark in lookaround.outermost(node))


def _branches(node: Node) -> list[list[Node]]:
    """The alternatives of a node as flat sequences, with groups that hold anchors multiplied out, if not too many."""
    branches = _multiplied(node)
    return branches if branches is not None else [[node]]


def _multiplied(node: Node) -> list[list[Node]] | None:
    match node:
        case Alt() if _has_anchor(node):
            parts = [_multiplied(item) for item in node.items]
            branches = [branch for part in parts if part is not None for branch in part]
            return branches if None not in parts and len(branches) <= MAX_BRANCHES else None
        case Seq():
            out: list[list[Node]] = [[]]
            for item in node.items:
                tails = _multiplied(item) if _has_anchor(item) else [[item]]
                if tails is None or len(out) * len(tails) > MAX_BRANCHES:
                    return None
                out = [head + tail for head in out for tail in tails]
            return out
    return [[node]]


def _edges(items: list[Node]) -> tuple[bool, list[Node], bool]:
    """Strip anchors at the edges: (anchored at the start, the rest, anchored at the end)."""
    starts = ends = False
    while items and items[0] == Anchor(True):
        items, starts = items[1:], True
    while items and items[-1] == Anchor(False):
        items, ends = items[:-1], True
    return starts, items, ends
