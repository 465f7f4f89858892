"""The number of states of an expression's deterministic automaton: positions (Glushkov, 1961), then sets of them."""

from dataclasses import dataclass

from grammars.regex_syntax import Alt, Class, Node, Ranges, Repeat, Seq, complement

_MAX_POSITIONS = 200


@dataclass(frozen=True, slots=True)
class _Part:
    """Of a subexpression: whether it matches nothing at all, and the positions that may come first and last."""

    is_nullable: bool
    first: frozenset[int]
    last: frozenset[int]


def n_states(node: Node, most: int) -> int:
    """The number of states, or `most` + 1 as soon as there are more. Anchors and boundaries count as nothing."""
    builder = _Builder()
    whole = builder.read(node)
    if len(builder.classes) > _MAX_POSITIONS:
        return most + 1
    symbols = _symbols(builder.classes)
    seen = {whole.first}
    queue = [whole.first]
    while queue and len(seen) <= most:
        live = queue.pop()
        for symbol in symbols:
            taken = [position for position in live if _holds(builder.classes[position], symbol)]
            following = frozenset().union(*(builder.follows[position] for position in taken))
            # A state is what may come next together with whether one may stop here.
            key = following | ({-1} if whole.last.intersection(taken) else frozenset())
            if taken and key not in seen:
                seen.add(key)
                queue.append(following)
    return len(seen)


class _Builder:
    """Numbers the classes of an expression, repetitions written out, and links each to those that may follow."""

    def __init__(self) -> None:
        self.classes: list[Ranges] = []
        self.follows: list[frozenset[int]] = []

    def read(self, node: Node) -> _Part:
        """The part of the automaton for `node`."""
        match node:
            case Class():
                position = len(self.classes)
                # Unicode properties are many ranges; as anything they can only raise the count.
                ranges = node.ranges if not node.properties else ((0, 0x10FFFF),)
                self.classes.append(complement(ranges) if node.negated and not node.properties else ranges)
                self.follows.append(frozenset())
                return _Part(False, frozenset({position}), frozenset({position}))
            case Seq():
                return self.sequence(node.items)
            case Alt():
                parts = [self.read(item) for item in node.items]
                return _Part(
                    any(part.is_nullable for part in parts),
                    frozenset().union(*(part.first for part in parts)),
                    frozenset().union(*(part.last for part in parts)),
                )
            case Repeat():
                return self.repeat(node)
        return _Part(True, frozenset(), frozenset())

    def sequence(self, items: tuple[Node, ...]) -> _Part:
        """One after the other."""
        whole = _Part(True, frozenset(), frozenset())
        for item in items:
            if len(self.classes) > _MAX_POSITIONS:
                break
            part = self.read(item)
            self.link(whole.last, part.first)
            whole = _Part(
                whole.is_nullable and part.is_nullable,
                whole.first | part.first if whole.is_nullable else whole.first,
                part.last | whole.last if part.is_nullable else part.last,
            )
        return whole

    def repeat(self, node: Repeat) -> _Part:
        """`low` copies, then optional ones up to `high`, or a loop."""
        copies = node.low if node.high is None else node.high
        optional = Repeat(node.node, 0, 1)
        if (node.low, node.high) == (0, 1):
            part = self.read(node.node)
            return _Part(True, part.first, part.last)
        if node.high is not None:
            return self.sequence((node.node,) * node.low + (optional,) * (copies - node.low))
        if node.low > 1:
            return self.sequence((node.node,) * (node.low - 1) + (Repeat(node.node, 1, None),))
        part = self.read(node.node)
        self.link(part.last, part.first)
        return _Part(part.is_nullable or node.low == 0, part.first, part.last)

    def link(self, earlier: frozenset[int], later: frozenset[int]) -> None:
        """Let each of `later` follow each of `earlier`."""
        for position in earlier:
            self.follows[position] |= later


def _symbols(classes: list[Ranges]) -> list[int]:
    """One code point for each way in which the classes divide them."""
    edges = {0}
    for ranges in classes:
        for low, high in ranges:
            edges |= {low, high + 1}
    return sorted(edge for edge in edges if edge <= 0x10FFFF)


def _holds(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)
