"""Random expressions that Python reads as ECMA-262 does, and short texts over the same few characters."""

import random

from hypothesis import strategies as st

from grammars.alphabet import Alphabet
from grammars.automaton import product
from grammars.nfa import Nfa
from grammars.regex_syntax import parse
from grammars.steps import Steps
from grammars.subsets import Subsets

ATOMS = st.sampled_from(["a", "b", "c", "[ab]", "[^a]", r"\d", r"\w", r"\W", r"\S", r"[a-c\d]", "0", r"\.", "-", "<"])
TEXTS = st.text(alphabet="abc0-. é<", max_size=6)
MARKS = st.sampled_from(["^", "$", r"\b", r"\B"])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,3}?", "+?", "{2,}"])
    return (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})")
        | st.tuples(inner, counts).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
    )


def _looking(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    looks = st.sampled_from(["(?=", "(?!"])
    return _combined(inner) | st.tuples(looks, inner).map(lambda pair: f"{pair[0]}{pair[1]})")


EXPRESSIONS = st.recursive(ATOMS, _combined, max_leaves=6)
ANCHORED = st.tuples(st.sampled_from(["", "^"]), EXPRESSIONS, st.sampled_from(["", "$"])).map("".join)
# Python's look-behind takes fixed widths alone, so that only atoms stand in it.
BEHIND = st.tuples(st.sampled_from(["(?<=", "(?<!"]), ATOMS | MARKS).map(lambda pair: f"{pair[0]}{pair[1]})")
LOOKING = st.recursive(ATOMS | MARKS | BEHIND, _looking, max_leaves=6)


class Sampler:
    """Draws texts of an expression by walking through its automaton; edges of ranges are drawn most."""

    def __init__(self, pattern: str) -> None:
        steps, node = Steps(), parse(pattern)
        self.alphabet = Alphabet([node], steps)
        n = len(self.alphabet.symbols)
        self.dfa = product([Subsets(Nfa.of(node, self.alphabet, steps), n, steps)], all, steps)

    def text(self, rng: random.Random, most: int) -> str | None:
        """A text, ended where it may once it has `most` characters; None when that took too long."""
        text, state = "", 0
        while len(text) < 3 * most:
            if self.dfa.accepting[state] and rng.random() < (0.05 if len(text) < most else 0.6):
                return text
            moves = list(self.dfa.moves(state))
            if not moves:
                return text
            column, state = rng.choice(moves)
            low, high = rng.choice(self.alphabet.ranges(column))
            text += chr(rng.choice([low, high, rng.randint(low, high)]))
        return text if self.dfa.accepting[state] else None
