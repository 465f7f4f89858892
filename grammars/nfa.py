"""Automata with choices: an expression, symbol by symbol (Thompson, "Regular Expression Search Algorithm", 1968)."""

from collections.abc import Mapping
from typing import Final

from grammars.alphabet import Alphabet
from grammars.regex_syntax import Alt, Class, Node, RegexRefused, Repeat, Seq
from grammars.steps import Steps

MAX_STATES: Final = 20_000


class Nfa:
    """States with moves on sets of symbols and silent moves.

    moves: of each state, pairs (set of symbols, next state). silent: of each state, states reached without a symbol.
    A text is accepted when some way leads from `start` to `final`.
    """

    __slots__ = ("final", "moves", "silent", "start")

    def __init__(self) -> None:
        self.moves: list[list[tuple[int, int]]] = []
        self.silent: list[list[int]] = []
        self.start = self.final = self.add()

    def add(self) -> int:
        """A new state. Raises RegexRefused beyond MAX_STATES."""
        if len(self.moves) >= MAX_STATES:
            raise RegexRefused(f"grows beyond {MAX_STATES} states: nest fewer counted repetitions")
        self.moves.append([])
        self.silent.append([])
        return len(self.moves) - 1

    @staticmethod
    def of(node: Node, alphabet: Alphabet, steps: Steps, marks: Mapping[Node, int] | None = None) -> "Nfa":
        """The automaton of an expression. marks: nodes that stand for symbols outside the alphabet.

        Raises RegexRefused when it is too large, or holds an anchor or look-around that is no mark.
        """
        nfa = Nfa()
        nfa.start = _Builder(nfa, alphabet, steps, marks or {}).before(node, nfa.final)
        return nfa


class _Builder:
    def __init__(self, nfa: Nfa, alphabet: Alphabet, steps: Steps, marks: Mapping[Node, int]) -> None:
        self.nfa, self.alphabet, self.steps, self.marks = nfa, alphabet, steps, marks
        self.known: dict[tuple[int, int], int] = {}  # states by their only move: alternatives share their ends

    def before(self, node: Node, after: int) -> int:
        """The state from which `node` leads to the state `after`."""
        self.steps.spend(1)
        match node:
            case Class():
                return self.moving(self.alphabet.mask(node), after)
            case Seq():
                for item in reversed(node.items):
                    after = self.before(item, after)
                return after
            case Alt():
                state = self.nfa.add()
                self.nfa.silent[state] = [self.before(item, after) for item in node.items]
                return state
            case Repeat():
                return self.repeated(node, after)
            case _ if node in self.marks:
                return self.moving(1 << self.marks[node], after)
        raise RegexRefused("has an anchor that is not at its edge")

    def moving(self, symbols: int, after: int) -> int:
        state = self.known.get((symbols, after))
        if state is None:
            state = self.known[symbols, after] = self.nfa.add()
            if symbols:
                self.nfa.moves[state].append((symbols, after))
        return state

    def repeated(self, node: Repeat, after: int) -> int:
        if node.high is None:
            loop = self.nfa.add()
            inside = self.before(node.node, loop)
            self.nfa.silent[loop] = [inside, after]
            entry, copies = loop, node.low
        else:
            entry, copies = after, node.low
            for _ in range(node.high - node.low):
                # Each optional copy may also leave for the end, not for the next one: silent ways stay short.
                optional = self.nfa.add()
                self.nfa.silent[optional] = [self.before(node.node, entry), after]
                entry = optional
        for _ in range(copies):
            entry = self.before(node.node, entry)
        return entry
