r"""Expressions as llguidance may read them for texts inside JSON, where it is loose over one kind of class.

llguidance 1.9 turns an expression over texts into one over their JSON spelling. A class that holds every control
character (`\n` aside) is given all escapes at once, `\"` and `\\` among them: `[^"]` then lets a quote through. That
holds of classes joined by `|` as well. Without U+0000 a class is spelled escape by escape, and right.
"""

from typing import Final

from grammars.alphabet import code_points
from grammars.regex_syntax import Alt, Class, Node, Ranges, RegexRefused, Repeat, Seq, complement, merge, nodes, parse
from grammars.regex_text import NOTHING, emit

_NUL: Final[Ranges] = ((0x00, 0x00),)
_CONTROLS: Final[Ranges] = ((0x00, 0x09), (0x0B, 0x1F))
_UNSPELLED: Final[Ranges] = ((0x00, 0x07), (0x0B, 0x0B), (0x0E, 0x1F), (0x7F, 0x7F))  # no letter after the backslash
_ESCAPED: Final[Ranges] = ((0x22, 0x22), (0x5C, 0x5C))


def quoted(pattern: str) -> str:
    """`pattern`, in our dialect, or where llguidance would be loose the same without U+0000 in the classes at fault.

    So a string held by `[^"]*` can't hold U+0000. To be used last of all: a complement of the result would be wider.
    """
    tree = parse(pattern)
    at_fault = {node: ranges for node in nodes(tree) if (ranges := _read_loosely(node)) is not None}
    together = merge(tuple(pair for ranges in at_fault.values() for pair in ranges))
    if not _covers(together, _CONTROLS):
        return pattern
    narrowed = _narrowed(tree, {node: _without_nul(ranges) for node, ranges in at_fault.items()})
    return NOTHING if narrowed is None else emit(narrowed)


def quoted_without_u(pattern: str) -> str:
    """`quoted`, for strings without escapes by number: without the classes that only these could spell.

    llguidance 1.9 reads such a class between two `.*` as nothing at all, so that any text would do.
    """
    tree = parse(pattern)
    unspelled: dict[Node, Ranges] = {node: () for node in nodes(tree) if _is_unspelled(node)}
    if unspelled:
        narrowed = _narrowed(tree, unspelled)
        pattern = NOTHING if narrowed is None else emit(narrowed)
    return quoted(pattern)


def _is_unspelled(node: Node) -> bool:
    if not isinstance(node, Class) or node.properties:
        return False
    ranges = code_points(node)
    return bool(ranges) and _covers(_UNSPELLED, ranges)


def _read_loosely(node: Node) -> Ranges | None:
    """The code points of a class that leaves out what `\\"` or `\\\\` spell; None for others."""
    if not isinstance(node, Class):
        return None
    try:
        ranges = code_points(node)
    except RegexRefused:
        # Of a property without a table only the explicit part is known; outside of one lies what is not excluded.
        ranges = complement(node.ranges) if node.negated else merge(node.ranges)
    return None if _covers(ranges, _ESCAPED) else ranges


def _covers(ranges: Ranges, wanted: Ranges) -> bool:
    return merge((*ranges, *wanted)) == merge(ranges)


def _without_nul(ranges: Ranges) -> Ranges:
    return complement((*complement(ranges), *_NUL))


def _narrowed(node: Node, narrower: dict[Node, Ranges]) -> Node | None:
    """The tree with some classes narrowed; None when nothing matches any more."""
    match node:
        case Class() if node in narrower and node.properties:
            # Unicode properties keep their names: of these only a negated class holds control characters and more.
            return Class(merge((*node.ranges, *_NUL)), True, node.properties) if node.negated else node
        case Class() if node in narrower:
            return Class(narrower[node]) if narrower[node] else None
        case Seq():
            items = [_narrowed(item, narrower) for item in node.items]
            kept = tuple(item for item in items if item is not None)
            return Seq(kept) if len(kept) == len(items) else None
        case Alt():
            branches = tuple(branch for item in node.items if (branch := _narrowed(item, narrower)) is not None)
            return Alt(branches) if branches else None
        case Repeat():
            inner = _narrowed(node.node, narrower)
            if inner is not None:
                return Repeat(inner, node.low, node.high)
            return None if node.low else Seq(())
    return node
