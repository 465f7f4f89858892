"""Free text and fixed texts in a row as one deterministic automaton over bytes, which knows where each part ends.

    free text until `</t>`     no `</t>` so far: how much of it the text ends with, times the place in a UTF-8 character
    one of `yes`, `no`         the prefix tree; no choice may begin another, so that the end is known when it is reached

A part's last byte leads to the first state of the next one, and the last part's to END. For how much of `until` a text
ends with: Knuth, Morris and Pratt, "Fast pattern matching in strings" (1977). UTF-8: Unicode 17, table 3-7.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from grammars.constraint import Choice, FreeText

END: Final = 0
DEAD: Final = -1

# Inside a character: the bounds of its next byte, and how many bytes follow that one.
_Pending = tuple[int, int, int] | None
_ANY: Final = (0x80, 0xBF)


@dataclass(frozen=True, slots=True)
class Scanner:
    """table: next states, int32 [n_states, 256], END and DEAD included. part: which part each state is in, [n_states].

    distance: fewest bytes from each state to the end of its part, [n_states]. start: the first state. is_open: the last
    part is free text without an end, so that the answer may stop at `accepting` states of it.
    """

    table: NDArray[np.int32]
    part: NDArray[np.int32]
    distance: NDArray[np.int32]
    start: int
    accepting: frozenset[int]

    def hurried(self, part: int) -> NDArray[np.int32]:
        """The table in which `part` goes the shortest way to its end and no other."""
        nearer = np.append(self.distance, np.int32(-1))  # the last entry is DEAD's
        stays = self.part[self.table] == part
        stays &= self.table >= 0
        is_slow = stays & (nearer[self.table] != self.distance[:, None] - 1)
        is_slow &= (self.part == part)[:, None]
        return np.where(is_slow, np.int32(DEAD), self.table)


def scanner(parts: Sequence[FreeText | Choice], *, may_end: bool = False) -> Scanner:
    """The automaton of `parts`. Free text without `until` may only be the last; no choice may begin another.

    may_end: the answer may end within the first part, behind any whole character.
    """
    rows: list[list[int]] = [[DEAD] * 256]
    owner = [-1]
    accepting: set[int] = {END}
    following = END
    for index in range(len(parts) - 1, -1, -1):
        part = parts[index]
        walk: _Walk = _Fixed(part.choices) if isinstance(part, Choice) else _Free((part.until or "").encode())
        if isinstance(part, FreeText) and part.until is None:
            accepting = set()
        numbers: dict[object, int] = {}
        queue: list[object] = [walk.first]
        numbers[walk.first] = len(rows)
        rows.append([DEAD] * 256)
        owner.append(index)
        for state in queue:
            row = rows[numbers[state]]
            for byte, target in walk.steps(state):
                if target is None:
                    row[byte] = following
                    continue
                if target not in numbers:
                    numbers[target] = len(rows)
                    rows.append([DEAD] * 256)
                    owner.append(index)
                    queue.append(target)
                row[byte] = numbers[target]
            if isinstance(part, FreeText) and part.until is None and state == (0, None):
                accepting.add(numbers[state])
            if may_end and index == 0 and isinstance(state, tuple) and state[1] is None:
                accepting.add(numbers[state])
        following = numbers[walk.first]
    table, part_of = np.array(rows, dtype=np.int32), np.array(owner, dtype=np.int32)
    return Scanner(table, part_of, _distances(table, part_of, accepting), following, frozenset(accepting))


class _Walk(Protocol):
    """One part: its first state, and where each byte leads from a state; None is its end."""

    @property
    def first(self) -> object:
        """The first state."""

    def steps(self, state: object) -> Iterator[tuple[int, object]]:
        """(byte, next state or None)."""


@dataclass(frozen=True, slots=True)
class _Fixed:
    """One of some texts; a state is what was written so far."""

    choices: tuple[str, ...]
    first: object = b""

    def steps(self, state: object) -> Iterator[tuple[int, object]]:
        texts = {choice.encode() for choice in self.choices}
        for text in texts:
            if isinstance(state, bytes) and text.startswith(state) and len(text) > len(state):
                longer = text[: len(state) + 1]
                yield longer[-1], None if longer in texts else longer


@dataclass(frozen=True, slots=True)
class _Free:
    """Text up to the first `until`; a state is (bytes of it that the text ends with, place in a character)."""

    until: bytes
    first: object = (0, None)

    def steps(self, state: object) -> Iterator[tuple[int, object]]:
        if not isinstance(state, tuple):
            raise TypeError(f"{state!r} is no state of free text")
        matched, pending = state
        for byte, after in _utf8(pending):
            n = self._matched(matched, byte)
            yield byte, None if self.until and n == len(self.until) else (n, after)

    def _matched(self, matched: int, byte: int) -> int:
        """The longest beginning of `until` that the text ends with after one more byte."""
        text = self.until[:matched] + bytes([byte])
        return next(n for n in range(min(len(text), len(self.until)), -1, -1) if text.endswith(self.until[:n]))


def _utf8(pending: _Pending) -> Iterator[tuple[int, _Pending]]:
    """The bytes that continue well-formed UTF-8."""
    if pending is not None:
        low, high, more = pending
        for byte in range(low, high + 1):
            yield byte, (*_ANY, more - 1) if more else None
        return
    for byte in range(0x80):
        yield byte, None
    for byte in range(0xC2, 0xE0):
        yield byte, (*_ANY, 0)
    for byte in range(0xE0, 0xF0):
        low, high = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}.get(byte, _ANY)
        yield byte, (low, high, 1)
    for byte in range(0xF0, 0xF5):
        low, high = {0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(byte, _ANY)
        yield byte, (low, high, 2)


def _distances(table: NDArray[np.int32], part: NDArray[np.int32], accepting: set[int]) -> NDArray[np.int32]:
    """Fewest bytes from each state to a state of another part, or to the end of an answer in the same one."""
    far = np.int32(1 << 30)
    distance = np.full(len(table), far, dtype=np.int32)
    leaves = ((table >= 0) & (part[table] != part[:, None])).any(axis=1)
    distance[leaves] = 1
    distance[list(accepting)] = 0
    while True:
        onward = np.where((table >= 0) & (part[table] == part[:, None]), distance[table], far).min(axis=1)
        nearer = np.minimum(distance, np.minimum(onward, far - 1) + 1)
        if (nearer == distance).all():
            return distance
        distance = nearer
