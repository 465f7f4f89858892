"""Deterministic steps through an automaton with choices, made as they are asked for."""

from grammars.nfa import Nfa
from grammars.steps import Steps


class Subsets:
    """The subset construction (Rabin and Scott, 1959), lazily: a state is an int with the bits of the states within.

    0 is the state from which nothing is accepted any more. n_symbols: symbols 0 to n - 1, marks included.
    """

    __slots__ = ("_closures", "_final", "_nfa", "_rows", "_steps", "_useful", "n_symbols", "start")

    def __init__(self, nfa: Nfa, n_symbols: int, steps: Steps) -> None:
        self._nfa, self._steps, self.n_symbols = nfa, steps, n_symbols
        self._useful = _useful(nfa)
        self._closures: dict[int, int] = {}
        self._rows: dict[int, list[int]] = {}
        self._final = 1 << nfa.final
        self.start = self._closure(nfa.start)

    def accepts(self, state: int) -> bool:
        """Whether a text may end here."""
        return bool(state & self._final)

    def row(self, state: int) -> list[int]:
        """The next state for each symbol."""
        row = self._rows.get(state)
        if row is None:
            row = self._rows[state] = self._row(state)
        return row

    def is_trap(self, state: int) -> bool:
        """Whether everything is accepted from here on."""
        return self.accepts(state) and all(following == state for following in self.row(state))

    def _row(self, state: int) -> list[int]:
        by_set: dict[int, int] = {}
        rest = state
        n = 1
        while rest:
            bit = rest & -rest
            rest ^= bit
            for symbols, target in self._nfa.moves[bit.bit_length() - 1]:
                by_set[symbols] = by_set.get(symbols, 0) | self._closure(target)
                n += 1
        row = [0] * self.n_symbols
        for symbols, targets in by_set.items():
            while symbols:
                bit = symbols & -symbols
                symbols ^= bit
                row[bit.bit_length() - 1] |= targets
                n += 1
        # Wide states cost more: an int of n bits is n / 64 words.
        self._steps.spend(n * (1 + (state.bit_length() >> 11)))
        return row

    def _closure(self, state: int) -> int:
        """The states with moves, and the final one, that are reached from `state` in silence."""
        found = self._closures.get(state)
        if found is None:
            found, seen, stack = 0, {state}, [state]
            while stack:
                current = stack.pop()
                if current in self._useful and (self._nfa.moves[current] or current == self._nfa.final):
                    found |= 1 << current
                for following in self._nfa.silent[current]:
                    if following not in seen:
                        seen.add(following)
                        stack.append(following)
            self._steps.spend(len(seen))
            self._closures[state] = found
        return found


def _useful(nfa: Nfa) -> set[int]:
    """The states from which the final one can be reached."""
    earlier: list[list[int]] = [[] for _ in nfa.moves]
    for state, moves in enumerate(nfa.moves):
        for _, target in moves:
            earlier[target].append(state)
        for target in nfa.silent[state]:
            earlier[target].append(state)
    found, stack = {nfa.final}, [nfa.final]
    while stack:
        for state in earlier[stack.pop()]:
            if state not in found:
                found.add(state)
                stack.append(state)
    return found
