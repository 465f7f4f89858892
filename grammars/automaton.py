"""Deterministic automata: products of lazy ones, made small."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from grammars.regex_syntax import RegexRefused
from grammars.steps import Steps
from grammars.subsets import Subsets

MAX_STATES: Final = 4_000

Flags = tuple[bool, ...]

_SINK: Final = -1


@dataclass(frozen=True, slots=True)
class Dfa:
    """States 0 (the start) to n - 1, without any from which nothing is accepted; the empty language has none.

    columns: sets of symbols (bits) that the states do not tell apart. rows: of each state the next one for each
    column, -1 where nothing is accepted any more. accepting: whether a text may end in the state.
    """

    columns: list[int]
    rows: list[list[int]]
    accepting: list[bool]

    def moves(self, state: int) -> Iterable[tuple[int, int]]:
        """Pairs (set of symbols, next state)."""
        return ((column, target) for column, target in zip(self.columns, self.rows[state], strict=True) if target >= 0)

    def order(self) -> list[int] | None:
        """The states, each before those that follow it, or None where there is a loop (Kahn, 1962)."""
        waiting = [0] * len(self.rows)
        for row in self.rows:
            for target in row:
                if target >= 0:
                    waiting[target] += 1
        ready = [state for state, n in enumerate(waiting) if not n]
        out = []
        while ready:
            state = ready.pop()
            out.append(state)
            for target in self.rows[state]:
                if target >= 0:
                    waiting[target] -= 1
                    if not waiting[target]:
                        ready.append(target)
        return out if len(out) == len(self.rows) else None


def product(
    parts: Sequence[Subsets],
    accepts: Callable[[Flags], bool],
    steps: Steps,
    *,
    is_hopeless: Callable[[tuple[int, ...]], bool] = lambda _: False,
) -> Dfa:
    """The smallest automaton of the texts for which `accepts` holds of the parts' own verdicts.

    is_hopeless: whether states of the parts lead to no such text; it only saves work. Raises RegexRefused.
    """
    start = tuple(part.start for part in parts)
    numbers = {start: 0}
    queue = [start]
    rows: list[list[int]] = []
    accepting: list[bool] = []
    for state in queue:  # grows while it is read
        accepting.append(accepts(tuple(part.accepts(one) for part, one in zip(parts, state, strict=True))))
        row = []
        for following in zip(*(part.row(one) for part, one in zip(parts, state, strict=True)), strict=True):
            number = numbers.get(following)
            if number is None:
                if is_hopeless(following):
                    number = numbers[following] = -1
                else:
                    number = numbers[following] = len(queue)
                    queue.append(following)
            row.append(number)
        rows.append(row)
        steps.spend(len(row) * (1 + len(parts)) // 2)
        if len(queue) > MAX_STATES:
            raise RegexRefused(f"needs more than {MAX_STATES} states: use smaller counts or fewer alternatives")
    return _smallest(rows, accepting, steps)


def finds(
    parts: Sequence[Subsets],
    accepts: Callable[[Flags], bool],
    *,
    is_hopeless: Callable[[tuple[int, ...]], bool] = lambda _: False,
) -> bool:
    """Whether there is a text for which `accepts` holds of the parts' verdicts; stops at the first."""
    start = tuple(part.start for part in parts)
    seen = {start}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if accepts(tuple(part.accepts(one) for part, one in zip(parts, state, strict=True))):
            return True
        for following in set(zip(*(part.row(one) for part, one in zip(parts, state, strict=True)), strict=True)):
            if following not in seen and not is_hopeless(following):
                seen.add(following)
                queue.append(following)
        if len(seen) > MAX_STATES:
            raise RegexRefused(f"needs more than {MAX_STATES} states: use smaller counts or fewer alternatives")
    return False


def _smallest(rows: list[list[int]], accepting: list[bool], steps: Steps) -> Dfa:
    """Without useless states, equal columns and equal states."""
    live = _live(rows, accepting)
    if 0 not in live:
        return Dfa([], [], [])
    kept = sorted(live)
    number = {state: i for i, state in enumerate(kept)}
    rows = [[number.get(target, -1) for target in rows[state]] for state in kept]
    accepting = [accepting[state] for state in kept]
    masks: dict[tuple[int, ...], int] = {}
    for symbol, column in enumerate(zip(*rows, strict=True)):
        masks[column] = masks.get(column, 0) | 1 << symbol
    used = [column for column in masks if any(target >= 0 for target in column)]
    steps.spend(len(rows) * (len(rows[0]) + len(used)))
    blocks = _blocks([list(column) for column in used], accepting, steps)
    # Blocks are numbered as their first states come, so that the start stays state 0.
    block_of: dict[int, int] = {}
    for state in range(len(rows)):
        block_of.setdefault(blocks[state], len(block_of))
    out_rows: list[list[int]] = [[] for _ in block_of]
    out_accepting = [False] * len(block_of)
    for state in range(len(rows)):
        block = block_of[blocks[state]]
        if not out_rows[block]:
            out_rows[block] = [block_of[blocks[column[state]]] if column[state] >= 0 else -1 for column in used]
            out_accepting[block] = accepting[state]
    return Dfa([masks[column] for column in used], out_rows, out_accepting)


def _live(rows: list[list[int]], accepting: list[bool]) -> set[int]:
    """The states from which a text is accepted."""
    earlier: list[list[int]] = [[] for _ in rows]
    for state, row in enumerate(rows):
        for target in set(row):
            if target >= 0:
                earlier[target].append(state)
    stack = [state for state, is_accepting in enumerate(accepting) if is_accepting]
    live = set(stack)
    while stack:
        for state in earlier[stack.pop()]:
            if state not in live:
                live.add(state)
                stack.append(state)
    return live


def _blocks(columns: list[list[int]], accepting: list[bool], steps: Steps) -> list[int]:
    """The block of each state, equal states in one (Hopcroft, "An n log n algorithm for minimizing states", 1971).

    columns: per symbol the next state of each state, or -1: the missing sink, which no live state is equal to.
    """
    n = len(accepting)
    inverse: list[dict[int, list[int]]] = []
    for column in columns:
        earlier: dict[int, list[int]] = {}
        for state, target in enumerate(column):
            earlier.setdefault(target, []).append(state)
        inverse.append(earlier)
    blocks: list[set[int]] = [set(), set()]
    block_of = [0] * n
    for state, is_accepting in enumerate(accepting):
        blocks[is_accepting].add(state)
        block_of[state] = int(is_accepting)
    # The sink is a block of its own, which nothing splits: it only splits others, first of all.
    queue = [_SINK, 0, 1]
    while queue:
        number = queue.pop()
        splitter = tuple(blocks[number]) if number != _SINK else (_SINK,)
        for earlier in inverse:
            touched: dict[int, set[int]] = {}
            for target in splitter:
                for state in earlier.get(target, ()):
                    touched.setdefault(block_of[state], set()).add(state)
            steps.spend(1 + len(splitter) // 2)
            for block, inside in touched.items():
                if len(inside) == len(blocks[block]):
                    continue
                outside = blocks[block] - inside
                small, large = (inside, outside) if len(inside) <= len(outside) else (outside, inside)
                blocks[block] = large
                new = len(blocks)
                blocks.append(small)
                for state in small:
                    block_of[state] = new
                # A block that waits goes on waiting as its larger half; of one that does not, the smaller is enough.
                queue.append(new)
    return block_of
