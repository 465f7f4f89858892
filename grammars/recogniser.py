"""A text read character by character under expressions: where one stands in their automata, which are made lazily."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from grammars.alphabet import Alphabet
from grammars.nfa import Nfa
from grammars.regex_syntax import RegexRefused, parse
from grammars.steps import Steps
from grammars.subsets import Subsets

State = tuple[int, ...]

UNKNOWN: Final[State] = ()
"""The state after which the tables have grown too large."""


class Recogniser:
    """Texts that match all of some expressions in our dialect, each as a whole.

    Expressions are read when they are first needed, and tables filled as they are: two threads at most do the same work
    twice.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._parts: list[Subsets] = []

    @cached_property
    def start(self) -> State:
        """The state before the first character; UNKNOWN for expressions that are too large to be read."""
        steps = Steps()
        try:
            trees = [parse(pattern) for pattern in self._patterns]
            self._alphabet = Alphabet(trees, steps)
            n = len(self._alphabet.symbols)
            self._parts = [Subsets(Nfa.of(tree, self._alphabet, steps), n, steps) for tree in trees]
        except RegexRefused:
            return UNKNOWN
        return tuple(part.start for part in self._parts)

    def after(self, state: State, code: int) -> State:
        """The state after one more code point; UNKNOWN stays UNKNOWN."""
        if not state:
            return UNKNOWN
        symbol = self._alphabet.symbol_of(code)
        if symbol < 0:
            return (0,) * len(self._parts)
        try:
            return tuple(part.row(at)[symbol] if at else 0 for part, at in zip(self._parts, state, strict=True))
        except RegexRefused:
            return UNKNOWN

    def begins(self, text: str) -> bool:
        """Whether some text that matches begins with `text`; of several expressions, that each has such a text."""
        state = self.start
        for char in text:
            state = self.after(state, ord(char))
        return all(state)

    def takes_all(self, text: str) -> bool:
        """Whether every text that begins with `text` matches."""
        state = self.start
        for char in text:
            state = self.after(state, ord(char))
        return all(at and part.is_trap(at) for part, at in zip(self._parts, state, strict=True)) if state else False

    def matches(self, text: str) -> bool:
        """Whether `text` matches. Raises RegexRefused when the tables have grown too large."""
        state = self.start
        for char in text:
            state = self.after(state, ord(char))
            if not all(state):
                break
        if not state and self._patterns:
            raise RegexRefused("needs too large an automaton: use smaller counts and fewer alternatives")
        return all(at and part.accepts(at) for part, at in zip(self._parts, state, strict=True))
