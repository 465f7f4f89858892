"""Code points grouped into the few symbols that an automaton has to tell apart."""

from bisect import bisect_right
from collections.abc import Iterable

from grammars.regex_syntax import Class, Node, Ranges, complement, merge, nodes
from grammars.regex_text import SURROGATES, without_surrogates
from grammars.steps import Steps
from grammars.unicode_properties import property_ranges, unassigned


class Alphabet:
    """The coarsest division of the code points in which each class of some expressions is a union of symbols.

    A symbol is an index; a set of symbols is an int with its bits. Surrogates belong to no symbol, and where Unicode
    properties are asked for, nor do code points that have none yet: a later Unicode may put them into any class, so
    that neither an expression nor its complement may hold them.
    """

    __slots__ = ("_masks", "_starts", "_symbols_at", "symbols")

    symbols: list[Ranges]
    """The code points of each symbol."""

    def __init__(self, expressions: Iterable[Node], steps: Steps) -> None:
        """Raises RegexRefused for a Unicode property without a table."""
        classes = list(dict.fromkeys(node for tree in expressions for node in nodes(tree) if isinstance(node, Class)))
        without = unassigned() if any(node.properties for node in classes) else ()
        excluded = 1 << len(classes)
        edges: dict[int, int] = {0: 0}
        for i, ranges in enumerate([*map(code_points, classes), merge((*SURROGATES, *without))]):
            steps.spend(len(ranges))
            for low, high in ranges:
                edges[low] = edges.get(low, 0) ^ 1 << i
                edges[high + 1] = edges.get(high + 1, 0) ^ 1 << i
        edges.pop(0x110000, None)
        by_signature: dict[int, int] = {}
        self.symbols, self._starts, self._symbols_at = [], sorted(edges), []
        members: list[list[tuple[int, int]]] = []
        masks = [0] * len(classes)
        signature = 0
        for start, end in zip(self._starts, [*self._starts[1:], 0x110000], strict=True):
            signature ^= edges[start]
            if signature & excluded:
                self._symbols_at.append(-1)
                continue
            symbol = by_signature.setdefault(signature, len(members))
            if symbol == len(members):
                members.append([])
                rest = signature
                while rest:
                    i = (rest & -rest).bit_length() - 1
                    masks[i] |= 1 << symbol
                    rest &= rest - 1
                    steps.spend(1)
            members[symbol].append((start, end - 1))
            self._symbols_at.append(symbol)
        self.symbols = [merge(tuple(ranges)) for ranges in members]
        self._masks = dict(zip(classes, masks, strict=True))

    def mask(self, node: Class) -> int:
        """The symbols of a class that was among the expressions."""
        return self._masks[node]

    def symbol_of(self, code: int) -> int:
        """The symbol of a code point, -1 for none."""
        return self._symbols_at[bisect_right(self._starts, code) - 1]

    def ranges(self, mask: int) -> Ranges:
        """The code points of a set of symbols."""
        return merge(tuple(pair for i, pairs in enumerate(self.symbols) if mask >> i & 1 for pair in pairs))


def code_points(node: Class) -> Ranges:
    """The code points of a class, its Unicode properties looked up; none of them surrogates. Raises RegexRefused."""
    if not node.properties:
        return without_surrogates(complement(node.ranges) if node.negated else merge(node.ranges))
    if node.negated:
        # Outside of every member; what Unicode has not assigned is in no property, and so in no complement of one.
        out = [code_points(Class(node.ranges, negated=True))]
        out += [property_ranges(name, not negated) for name, negated in node.properties]
        outside = merge(tuple(pair for ranges in out for pair in complement(ranges)))
        return without_surrogates(complement(outside))
    parts = [node.ranges, *(property_ranges(name, negated) for name, negated in node.properties)]
    return without_surrogates(merge(tuple(pair for ranges in parts for pair in ranges)))
