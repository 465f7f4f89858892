"""From an automaton back to an expression, kept short: states are taken out one by one (Brzozowski, McCluskey, 1963).

The state that lengthens the rest least goes first (Delgado and Morais, "Approximation to the smallest regular
expression for a given regular language", 2004). Expressions are unions of sequences of counted items, and equal parts
have one number, so that `x(x(x)?)?` is seen to be `x{1,3}`, and `xy|xz` to be `x(?:y|z)`.
"""

from heapq import heapify, heappop, heappush
from typing import Final

from grammars.alphabet import Alphabet
from grammars.automaton import Dfa
from grammars.regex_syntax import Alt, Class, Node, RegexRefused, Repeat, Seq
from grammars.steps import Steps

MAX_LENGTH: Final = 16_384
MAX_DEPTH: Final = 60
"""Limits of a result, in characters and groups inside one another."""

Item = tuple[int, int, int | None]
"""(number of a part, at least, at most) with None for no end."""
Sequence = tuple[Item, ...]
Union = tuple[Sequence, ...]
"""Without members it matches nothing; an empty member is the empty text."""

_NOTHING: Final[Union] = ()
_EMPTY: Final[Union] = ((),)


def expression(dfa: Dfa, alphabet: Alphabet, steps: Steps) -> Node:
    """The expression of an automaton that accepts something. Raises RegexRefused when it would be too long."""
    return _Eliminator(dfa, alphabet, steps).run()


class _Parts:
    """Classes and groups by number; both have a length in characters and a depth of groups."""

    def __init__(self, alphabet: Alphabet, steps: Steps) -> None:
        self.alphabet, self.steps = alphabet, steps
        self.parts: list[int | Union] = []  # a class is a set of symbols
        self.lengths: list[int] = []
        self.depths: list[int] = []
        self.numbers: dict[int | Union, int] = {}

    def part(self, part: int | Union) -> int:
        """The number of a class or group."""
        number = self.numbers.get(part)
        if number is None:
            number = self.numbers[part] = len(self.parts)
            self.parts.append(part)
            if isinstance(part, int):
                n_ranges = len(self.alphabet.ranges(part))
                self.lengths.append(2 if n_ranges == 1 else 2 + 3 * n_ranges)
                self.depths.append(0)
            else:
                self.lengths.append(4 + self.length(part))
                self.depths.append(1 + max((self.depths[a] for sequence in part for a, _, _ in sequence), default=0))
            self.steps.spend(4)
        return number

    def length(self, union: Union) -> int:
        """About how many characters its text has."""
        return sum(1 + sum(self.lengths[a] + _count_length(low, high) for a, low, high in one) for one in union)

    def union(self, *unions: Union) -> Union:
        """What any of them matches."""
        members = dict.fromkeys(sequence for union in unions for sequence in union)
        self.steps.spend(2 * len(members))
        if len(members) < 2:
            return tuple(members)
        members = self.with_merged_classes(members)
        members = self.with_merged_counts(members)
        return self.factored(tuple(members))

    def with_merged_classes(self, members: dict[Sequence, None]) -> dict[Sequence, None]:
        classes = 0
        for sequence in members:
            if len(sequence) == 1 and sequence[0][1:] == (1, 1):
                part = self.parts[sequence[0][0]]
                if isinstance(part, int):
                    classes |= part
        if not classes:
            return members
        whole = self.part(classes)
        out: dict[Sequence, None] = {}
        for sequence in members:
            is_class = len(sequence) == 1 and sequence[0][1:] == (1, 1) and isinstance(self.parts[sequence[0][0]], int)
            out[((whole, 1, 1),) if is_class else sequence] = None
        return out

    def with_merged_counts(self, members: dict[Sequence, None]) -> dict[Sequence, None]:
        """`x{1,2}|x{3}` as `x{1,3}`, and the empty text taken in by what may then be absent."""
        counts: dict[int, list[tuple[int, int | None]]] = {}
        for sequence in members:
            if len(sequence) == 1:
                counts.setdefault(sequence[0][0], []).append(sequence[0][1:])
        has_empty = () in members
        out: dict[Sequence, None] = {}
        done: set[int] = set()
        for sequence in members:
            if len(sequence) != 1:
                out[sequence] = None
            elif sequence[0][0] not in done:
                number = sequence[0][0]
                done.add(number)
                for low, high in _joined(counts[number], has_empty):
                    out[((number, low, high),)] = None
        if has_empty and any(all(low == 0 for _, low, _ in sequence) for sequence in out if sequence):
            del out[()]
        return out

    def factored(self, members: Union) -> Union:
        """First items, then last ones, that several members share, written once."""
        for edge in (0, -1):
            by_item: dict[Item, list[Sequence]] = {}
            for sequence in members:
                if sequence:
                    by_item.setdefault(sequence[edge], []).append(sequence)
            if all(len(group) == 1 for group in by_item.values()):
                continue
            out: list[Sequence] = [sequence for sequence in members if not sequence]
            for item, group in by_item.items():
                if len(group) == 1:
                    out += group
                elif edge == 0:
                    out += self.concat(((item,),), self.union(tuple(sequence[1:] for sequence in group)))
                else:
                    out += self.concat(self.union(tuple(sequence[:-1] for sequence in group)), ((item,),))
            members = tuple(dict.fromkeys(out))
            self.steps.spend(2 * len(members))
        return members

    def concat(self, first: Union, second: Union) -> Union:
        """One after the other."""
        if not first or not second:
            return _NOTHING
        left, right = self.sequence(first), self.sequence(second)
        self.steps.spend(1 + (len(left) + len(right)) // 4)
        if left and right and left[-1][0] == right[0][0]:
            number, low, high = left[-1]
            _, more, most = right[0]
            joined = (number, low + more, None if high is None or most is None else high + most)
            return ((*left[:-1], joined, *right[1:]),)
        return (left + right,)

    def sequence(self, union: Union) -> Sequence:
        """A union as one sequence: a group, unless it is one already."""
        if len(union) == 1:
            return union[0]
        rest = tuple(sequence for sequence in union if sequence)
        if len(rest) == len(union):
            return ((self.part(union), 1, 1),)
        if len(rest) == 1 and len(rest[0]) == 1 and rest[0][0][1] <= 1:
            return ((rest[0][0][0], 0, rest[0][0][2]),)
        return ((self.part(rest), 0, 1),)

    def star(self, union: Union) -> Union:
        """Any number of times."""
        inside: dict[Sequence, None] = {}
        for sequence in union:
            if len(sequence) == 1 and sequence[0][1] <= 1:
                inside[((sequence[0][0], 1, 1),)] = None  # `(x+|y)*` is `(x|y)*`
            elif sequence:
                inside[sequence] = None
        rest = self.union(tuple(inside))
        if not rest:
            return _EMPTY
        if len(rest) == 1 and len(rest[0]) == 1 and rest[0][0][1] <= 1:
            return (((rest[0][0][0], 0, None),),)
        return (((self.part(rest), 0, None),),)

    def node(self, union: Union) -> Node:
        """The tree of a union."""
        branches = tuple(self.sequence_node(sequence) for sequence in union)
        return branches[0] if len(branches) == 1 else Alt(branches)

    def sequence_node(self, sequence: Sequence) -> Node:
        items: list[Node] = []
        for number, low, high in sequence:
            part = self.parts[number]
            inner = Class(self.alphabet.ranges(part)) if isinstance(part, int) else self.node(part)
            items.append(inner if (low, high) == (1, 1) else Repeat(inner, low, high))
        return items[0] if len(items) == 1 else Seq(tuple(items))


class _Eliminator:
    """The automaton with expressions on its edges; `n` is the end, to which every accepting state leads."""

    def __init__(self, dfa: Dfa, alphabet: Alphabet, steps: Steps) -> None:
        self.parts, self.steps = _Parts(alphabet, steps), steps
        n = len(dfa.rows)
        self.start, self.end = n + 1, n
        self.after: list[dict[int, Union]] = [{} for _ in range(n + 2)]
        self.before: list[set[int]] = [set() for _ in range(n + 2)]
        for state in range(n):
            masks: dict[int, int] = {}
            for column, target in dfa.moves(state):
                masks[target] = masks.get(target, 0) | column
            for target, mask in masks.items():
                self.link(state, target, (((self.parts.part(mask), 1, 1),),))
            if dfa.accepting[state]:
                self.link(state, self.end, _EMPTY)
        self.link(self.start, 0, _EMPTY)

    def link(self, state: int, target: int, union: Union) -> None:
        known = self.after[state].get(target)
        self.after[state][target] = union if known is None else self.parts.union(known, union)
        self.before[target].add(state)

    def run(self) -> Node:
        """Take out every state between the start and the end."""
        heap = [(self.weight(state), -state) for state in range(self.end)]
        heapify(heap)
        weights = {-state: weight for weight, state in heap}
        while heap:
            weight, negative = heappop(heap)
            state = -negative
            if weights.get(state) != weight:
                continue
            del weights[state]
            for touched in self.take_out(state):
                if touched in weights:
                    current = self.weight(touched)
                    if current != weights[touched]:
                        weights[touched] = current
                        heappush(heap, (current, -touched))
        whole = self.after[self.start].get(self.end, _NOTHING)
        if self.parts.length(whole) > MAX_LENGTH:
            raise RegexRefused(f"becomes an expression of more than {MAX_LENGTH} characters: use a simpler one")
        if any(self.parts.depths[a] > MAX_DEPTH for sequence in whole for a, _, _ in sequence):
            raise RegexRefused(f"becomes an expression of more than {MAX_DEPTH} nested groups: use a simpler one")
        return self.parts.node(whole)

    def weight(self, state: int) -> int:
        """By how much taking the state out would lengthen the expressions of the others."""
        incoming = [self.after[one][state] for one in self.before[state] if one != state]
        outgoing = [union for target, union in self.after[state].items() if target != state]
        loop = self.after[state].get(state)
        length = self.parts.length
        self.steps.spend(2 + len(incoming) + len(outgoing))
        return (
            sum(map(length, incoming)) * (len(outgoing) - 1)
            + sum(map(length, outgoing)) * (len(incoming) - 1)
            + (length(loop) * (len(incoming) * len(outgoing) - 1) if loop is not None else 0)
        )

    def take_out(self, state: int) -> set[int]:
        """Lead every way through the state around it; the states whose edges that changes."""
        outgoing = self.after[state]
        loop = self.parts.star(outgoing.pop(state)) if state in outgoing else _EMPTY
        self.before[state].discard(state)
        for target in outgoing:
            self.before[target].discard(state)
        for source in self.before[state]:
            head = self.parts.concat(self.after[source].pop(state), loop)
            for target, tail in outgoing.items():
                way = self.parts.concat(head, tail)
                if self.parts.length(way) > MAX_LENGTH:
                    raise RegexRefused(f"becomes an expression of more than {MAX_LENGTH} characters: use a simpler one")
                self.link(source, target, way)
        touched = self.before[state] | outgoing.keys()
        self.after[state], self.before[state] = {}, set()
        return touched


def _count_length(low: int, high: int | None) -> int:
    if (low, high) == (1, 1):
        return 0
    return 1 if (low, high) in ((0, 1), (0, None), (1, None)) else 5


def _joined(counts: list[tuple[int, int | None]], has_empty: bool) -> list[tuple[int, int | None]]:
    """Ranges of counts, merged where they overlap or touch; 0 is there where the empty text is."""
    ordered = sorted(counts, key=lambda pair: pair[0])
    if has_empty and ordered[0][0] == 1:
        ordered[0] = (0, ordered[0][1])
    out = ordered[:1]
    for low, high in ordered[1:]:
        last_low, last_high = out[-1]
        if last_high is not None and low > last_high + 1:
            out.append((low, high))
        elif last_high is not None:
            out[-1] = (last_low, None if high is None else max(high, last_high))
    return out
