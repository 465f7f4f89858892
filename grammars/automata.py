"""Questions about expressions as sets of texts, and the expressions that answer them.

Expressions are in our dialect (`regex_text.py`), each for the whole text, and so are results. Everything here is exact
within a budget of work and raises RegexRefused beyond it.
"""

from collections.abc import Sequence

from grammars.alphabet import Alphabet
from grammars.automaton import Dfa, finds, product
from grammars.elimination import expression
from grammars.nfa import Nfa
from grammars.regex_syntax import Alt, Class, Node, RegexRefused, Repeat, Seq, parse
from grammars.regex_text import NOTHING, emit
from grammars.steps import Steps
from grammars.subsets import Subsets

_STEPS_PER_STATE = 200


def intersection(patterns: Sequence[str]) -> str:
    """The texts that all of `patterns` match; every text when there are none.

    An expression that includes another one is dropped, so that `[a-z]{1,255}` beside `[a-z]*` stays as it is. Raises
    RegexRefused.
    """
    patterns = list(dict.fromkeys(patterns))
    if not patterns:
        return r"[\s\S]*"
    if len(patterns) == 1:
        return patterns[0]
    steps = Steps()
    alphabet, parts = _read(patterns, steps)
    kept = list(range(len(patterns)))
    for i in range(len(patterns)):
        others = [j for j in kept if j != i]
        if others and any(_includes(parts[i], parts[j]) for j in others):
            kept.remove(i)
    if len(kept) == 1:
        return patterns[kept[0]]
    dfa = product([parts[i] for i in kept], all, steps, is_hopeless=lambda states: 0 in states)
    return _text(dfa, alphabet, steps)


def complement(pattern: str) -> str:
    """The texts that `pattern` does not match. Raises RegexRefused."""
    steps = Steps()
    alphabet, parts = _read([pattern], steps)
    return _text(product(parts, lambda verdicts: not verdicts[0], steps), alphabet, steps)


def are_disjoint(*patterns: str) -> bool:
    """Whether no text matches all of them; it needs no expression of their intersection. Raises RegexRefused."""
    _, parts = _read(patterns, Steps())
    return not finds(parts, all, is_hopeless=lambda states: 0 in states)


def includes(outer: str, inner: str) -> bool:
    """Whether every text that `inner` matches is matched by `outer`. Raises RegexRefused."""
    if outer == inner:
        return True
    _, parts = _read([outer, inner], Steps())
    return _includes(*parts)


def matches(pattern: str, text: str) -> bool:
    """Whether `pattern` matches the whole of `text`; time grows with its length alone. Raises RegexRefused."""
    alphabet, (part,) = _read([pattern], Steps())
    state = part.start
    for char in text:
        symbol = alphabet.symbol_of(ord(char))
        if symbol < 0 or state == 0:
            return False
        state = part.row(state)[symbol]
    return part.accepts(state)


def texts(pattern: str, most: int) -> list[str] | None:
    """All texts that `pattern` matches, in order of code points, or None when there are more than `most`.

    Raises RegexRefused.
    """
    steps = Steps()
    alphabet, parts = _read([pattern], steps)
    dfa = product(parts, all, steps)
    order = dfa.order()
    if order is None:
        return None
    counts = [0] * len(dfa.rows)
    sizes = {column: sum(high - low + 1 for low, high in alphabet.ranges(column)) for column in dfa.columns}
    for state in reversed(order):
        ways = sum(sizes[column] * counts[target] for column, target in dfa.moves(state))
        counts[state] = dfa.accepting[state] + ways
    if counts and counts[0] > most:
        return None
    out: list[str] = []
    stack = [("", 0)] if counts else []
    while stack:
        text, state = stack.pop()
        if dfa.accepting[state]:
            out.append(text)
        for column, target in dfa.moves(state):
            stack += [(text + chr(code), target) for low, high in alphabet.ranges(column)
                      for code in range(low, high + 1)]  # fmt: skip
    return sorted(out)


def n_states(pattern: str, most: int) -> int | None:
    """The states of the smallest automaton of `pattern`, or None when finding them takes more than some `most` steps.

    Raises RegexRefused for what is no expression.
    """
    tree = parse(pattern)
    steps = Steps(_STEPS_PER_STATE * most)
    try:
        alphabet = Alphabet([tree], steps)
        part = Subsets(Nfa.of(tree, alphabet, steps), len(alphabet.symbols), steps)
        return len(product([part], all, steps).rows)
    except RegexRefused:
        return None


def lengths(pattern: str) -> tuple[int, int | None]:
    """The shortest and the longest text's length in code points, None where there is no longest.

    Not every length between them need occur. Raises RegexRefused, also when `pattern` matches nothing.
    """
    found = _lengths(parse(pattern))
    if found is None:
        raise RegexRefused("matches no text")
    return found


def _includes(outer: Subsets, inner: Subsets) -> bool:
    def is_hopeless(states: tuple[int, ...]) -> bool:
        return states[1] == 0

    return not finds([outer, inner], lambda verdicts: verdicts[1] and not verdicts[0], is_hopeless=is_hopeless)


def _read(patterns: Sequence[str], steps: Steps) -> tuple[Alphabet, list[Subsets]]:
    nodes = [parse(pattern) for pattern in patterns]
    alphabet = Alphabet(nodes, steps)
    n = len(alphabet.symbols)
    return alphabet, [Subsets(Nfa.of(node, alphabet, steps), n, steps) for node in nodes]


def _text(dfa: Dfa, alphabet: Alphabet, steps: Steps) -> str:
    return emit(expression(dfa, alphabet, steps)) if dfa.rows else NOTHING


def _lengths(node: Node) -> tuple[int, int | None] | None:
    """(shortest, longest), or None when nothing matches."""
    match node:
        case Class():
            return (1, 1)
        case Seq():
            shortest = 0
            longest: int | None = 0
            for item in node.items:
                found = _lengths(item)
                if found is None:
                    return None
                shortest += found[0]
                longest = None if longest is None or found[1] is None else longest + found[1]
            return shortest, longest
        case Alt():
            branches = [found for item in node.items if (found := _lengths(item)) is not None]
            if not branches:
                return None
            ends = [high for _, high in branches if high is not None]
            return min(low for low, _ in branches), max(ends) if len(ends) == len(branches) else None
        case Repeat():
            found = _lengths(node.node)
            if found is None:
                return (0, 0) if node.low == 0 else None
            low, high = found
            if high == 0:
                return 0, 0
            return low * node.low, None if node.high is None or high is None else high * node.high
    return 0, 0
