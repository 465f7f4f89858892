r"""Look-around, anchors and word boundaries, turned into plain expressions.

Each such place becomes a mark: a symbol of its own that the expression writes into the text.

    expression with marks      (?:M.)*           for ((?!foo).)*
    a condition for each mark  no M before foo   an automaton over texts with marks
    the plain expression       those marked texts that break no condition, the marks erased

An automaton reads the expression and all conditions side by side; a move over a mark is then a silent one. That is
exact wherever the mark stands, inside repetitions and inside one another, since a condition speaks of every mark in the
text. "Σ* M X Σ*" is where X holds after one chosen mark; the others are passed over. Compare Miyazaki and Minamide,
"Derivatives of Regular Expressions with Lookahead" (2019), which reaches the same languages.
"""

from collections.abc import Iterator
from typing import Final

from grammars.alphabet import Alphabet
from grammars.automaton import product
from grammars.elimination import expression
from grammars.nfa import Nfa
from grammars.regex_syntax import ANY, WORD, Alt, Anchor, Boundary, Class, Look, Node, RegexRefused, Repeat, Seq, nodes
from grammars.steps import Steps
from grammars.subsets import Subsets

NO_TEXT: Final = "matches no text at all"
"""How a refusal begins that is no matter of size."""

_FREE = Repeat(ANY, 0, None)
_WORD = Class(WORD)
_NO_WORD = Class(WORD, negated=True)
# Texts that end, or begin, with a word character, and all others.
_WORD_BEFORE, _NO_WORD_BEFORE = Seq((_FREE, _WORD)), Repeat(Seq((_FREE, _NO_WORD)), 0, 1)
_WORD_AFTER, _NO_WORD_AFTER = Seq((_WORD, _FREE)), Repeat(Seq((_NO_WORD, _FREE)), 0, 1)

Mark = Look | Anchor | Boundary


def is_plain(node: Node) -> bool:
    """Whether the expression holds no anchor, boundary or look-around."""
    return not any(isinstance(inner, Mark) for inner in nodes(node))


def plain(node: Node, steps: Steps) -> Node:
    """An expression without anchors, boundaries and look-around that matches the same whole texts.

    Raises RegexRefused when nothing matches and when the automaton or its expression is too large.
    """
    alphabet = Alphabet([node, _FREE, _WORD, _NO_WORD], steps)
    marks = [inner for inner in dict.fromkeys(nodes(node)) if isinstance(inner, Mark)]
    n = len(alphabet.symbols)
    resolver = _Resolver(alphabet, {mark: n + i for i, mark in enumerate(marks)}, steps)
    dfa = product([Subsets(resolver.erased(node), n, steps)], all, steps)
    if not dfa.rows:
        raise RegexRefused(f"{NO_TEXT}: its anchors or look-around contradict the rest")
    return expression(dfa, alphabet, steps)


class _Resolver:
    """marks: each anchor, boundary and look-around by the symbol that stands for it."""

    def __init__(self, alphabet: Alphabet, marks: dict[Node, int], steps: Steps) -> None:
        self.alphabet, self.marks, self.steps = alphabet, marks, steps
        self.n_symbols = len(alphabet.symbols) + len(marks)
        self.breaking: dict[Mark, Subsets] = {}

    def erased(self, node: Node, kept: Mark | None = None) -> Nfa:
        """The texts that `node` matches, its conditions met, its marks erased but for `kept`."""
        nfa = Nfa.of(node, self.alphabet, self.steps, self.marks)
        marks = [mark for mark in dict.fromkeys(outermost(node)) if mark != kept]
        return _Walk(self, nfa, marks).run() if marks else nfa

    def broken(self, mark: Mark) -> Subsets:
        """Marked texts in which `mark` stands somewhere that its condition does not hold."""
        if mark not in self.breaking:
            nfa = self.broken_once(mark)
            for moves, state in zip(nfa.moves, range(len(nfa.moves)), strict=True):
                moves.append((1 << self.marks[mark], state))
            # What leads nowhere but over silent moves passes marks over as well: the loop changes no text.
            self.breaking[mark] = Subsets(nfa, self.n_symbols, self.steps)
        return self.breaking[mark]

    def broken_once(self, mark: Mark) -> Nfa:
        """Texts with one `mark`, where its condition does not hold."""
        match mark:
            case Anchor(start=True):
                return self.erased(Seq((_FREE, ANY, mark, _FREE)), mark)
            case Anchor():
                return self.erased(Seq((_FREE, mark, ANY, _FREE)), mark)
            case Boundary():
                same = Alt((Seq((_WORD_BEFORE, mark, _WORD_AFTER)), Seq((_NO_WORD_BEFORE, mark, _NO_WORD_AFTER))))
                other = Alt((Seq((_WORD_BEFORE, mark, _NO_WORD_AFTER)), Seq((_NO_WORD_BEFORE, mark, _WORD_AFTER))))
                return self.erased(other if mark.negated else same, mark)
            case Look():
                inner = (mark, mark.node) if mark.ahead else (mark.node, mark)
                holds = self.erased(Seq((_FREE, *inner, _FREE)), mark)
                return holds if mark.negated else self.outside(holds, mark)

    def outside(self, nfa: Nfa, mark: Mark) -> Nfa:
        """The texts with one `mark` that `nfa` does not accept."""
        once = self.erased(Seq((_FREE, mark, _FREE)), mark)
        parts = [Subsets(part, self.n_symbols, self.steps) for part in (once, nfa)]
        dfa = product(
            parts,
            lambda verdicts: verdicts[0] and not verdicts[1],
            self.steps,
            is_hopeless=lambda states: not states[0],
        )
        out = Nfa()
        states = [out.add() for _ in dfa.rows]
        for state in range(len(dfa.rows)):
            out.moves[states[state]] = [(column, states[target]) for column, target in dfa.moves(state)]
            if dfa.accepting[state]:
                out.silent[states[state]].append(out.final)
        out.start = states[0] if states else out.add()
        return out


class _Walk:
    """An automaton with marks read beside the conditions of its marks; a state is a pair of where each of them is."""

    def __init__(self, resolver: _Resolver, nfa: Nfa, marks: list[Mark]) -> None:
        self.nfa, self.steps = nfa, resolver.steps
        self.conditions = [resolver.broken(mark) for mark in marks]
        self.by_symbol = {resolver.marks[mark]: i for i, mark in enumerate(marks)}
        self.n_real = len(resolver.alphabet.symbols)
        self.out = Nfa()
        self.states: dict[tuple[int, tuple[int, ...]], int] = {}
        self.queue: list[tuple[int, tuple[int, ...]]] = []

    def run(self) -> Nfa:
        """The automaton of the texts that break no condition, without the marks."""
        self.out.start = self.state(self.nfa.start, tuple(condition.start for condition in self.conditions))
        while self.queue:
            state, places = self.queue.pop()
            number = self.states[state, places]
            broken = [c.accepts(place) for c, place in zip(self.conditions, places, strict=True)]
            if state == self.nfa.final and not any(broken):
                self.out.silent[number].append(self.out.final)
            if any(c.is_trap(place) for c, place, b in zip(self.conditions, places, broken, strict=True) if b):
                continue
            self.out.silent[number] += [self.state(following, places) for following in self.nfa.silent[state]]
            for symbols, target in self.nfa.moves[state]:
                self.move(number, places, symbols, target)
        return self.out

    def state(self, state: int, places: tuple[int, ...]) -> int:
        key = (state, places)
        number = self.states.get(key)
        if number is None:
            number = self.states[key] = self.out.add()
            self.queue.append(key)
        return number

    def move(self, number: int, places: tuple[int, ...], symbols: int, target: int) -> None:
        """Follow one move of the expression: over code points with all conditions, over a mark with its own."""
        together: dict[tuple[int, ...], int] = {}
        while symbols:
            bit = symbols & -symbols
            symbols ^= bit
            symbol = bit.bit_length() - 1
            self.steps.spend(1 + len(places))
            if symbol < self.n_real:
                following = tuple(c.row(place)[symbol] for c, place in zip(self.conditions, places, strict=True))
                together[following] = together.get(following, 0) | bit
            elif symbol in self.by_symbol:
                i = self.by_symbol[symbol]
                after = self.conditions[i].row(places[i])[symbol]
                self.out.silent[number].append(self.state(target, (*places[:i], after, *places[i + 1 :])))
            else:
                together[places] = together.get(places, 0) | bit  # the mark that is kept
        for following, bits in together.items():
            self.out.moves[number].append((bits, self.state(target, following)))


def outermost(node: Node) -> Iterator[Mark]:
    """The marks of an expression, without those inside its look-around."""
    stack = [node]
    while stack:
        inner = stack.pop()
        match inner:
            case Seq() | Alt():
                stack.extend(inner.items)
            case Repeat():
                stack.append(inner.node)
            case Look() | Anchor() | Boundary():
                yield inner
