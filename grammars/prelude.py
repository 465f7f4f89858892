"""Free text and fixed texts before another constraint: masks from an automaton, one row for each of its states.

    <think> any text </think> {"answer": …
    ^-- scanner: a row a state --^^-- the tail: another backend's state, which begins at its first byte

A token that holds the end of the last part and more is legal when the tail takes what is left of it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grammars.constraint import Choice, FreeText
from grammars.errors import ConstraintRefused
from grammars.matcher import BackendState
from grammars.scanner import DEAD, END, Scanner
from grammars.spellings import Spellings
from grammars.token_run import packed

if TYPE_CHECKING:
    import torch


class Prelude:
    """The parts before `tail`, for one vocabulary. Rows are made when a state is first met, and kept."""

    def __init__(
        self,
        parts: Sequence[FreeText | Choice],
        tail: BackendState | None,
        spellings: Spellings,
        *,
        may_end: bool = False,
    ) -> None:
        """parts, may_end: as `scanner` takes them. tail: the start state of what follows; None when nothing does.

        Raises ConstraintRefused, keyword `until`, where the vocabulary cannot spell the way to the end of a free text.
        """
        self.tail, self._spellings = tail, spellings
        self.text = spellings.scanned(tuple(parts), may_end=may_end)
        self._rows: dict[tuple[int, bool], NDArray[np.uint32]] = {}
        self._takes: dict[bytes, bool] = {}
        for part in parts:
            if isinstance(part, FreeText) and part.until is not None and not self._can_spell(part.until.encode()):
                raise ConstraintRefused("until", "", f"{part.until!r} cannot be spelled by this model: choose another")

    @property
    def scanner(self) -> Scanner:
        """The automaton of the parts."""
        return self.text.scanner

    def spelling(self, token_id: int) -> bytes:
        """The bytes of a token; none for one without text."""
        return self._spellings.by_id[token_id]

    def row(self, state: int, n_tokens: int, n_words: int) -> NDArray[np.uint32]:
        """The mask at `state`, uint32 [n_words]; nobody may write into it."""
        shared, running_on, is_used_up = self.text.row(state, n_tokens, n_words)
        key = (state, is_used_up)
        if key not in self._rows:
            kept = self._taken_on(running_on)
            self._rows[key] = shared | packed(kept, n_words) if kept.size else shared
        return self._rows[key]

    def rest(self, table: NDArray[np.int32], state: int, spelling: bytes) -> tuple[int, bytes]:
        """(the state after `spelling`, what of it lies behind END). The state is DEAD where the automaton stops."""
        for i, byte in enumerate(spelling):
            if state == END:
                return END, spelling[i:]
            state = int(table[state, byte])
            if state == DEAD:
                return DEAD, b""
        return state, b""

    def entered(self, rest: bytes) -> tuple[BackendState | None, int]:
        """The tail after `rest`, and how many tokens that took; None where the tail does not take it."""
        if self.tail is None:
            return None, 0
        ids = self._spelled(rest)
        state = self.tail.fork()
        if ids is None or not all(state.advance(token_id) for token_id in ids):
            return None, 0
        return state, len(ids)

    def _taken_on(self, running_on: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Those of the tokens whose bytes, from their place on, the tail takes."""
        kept: list[int] = []
        for token_id, place in running_on:
            rest = self._spellings.by_id[token_id][place:]
            if rest not in self._takes:
                self._takes[rest] = self.entered(rest)[0] is not None
            if self._takes[rest]:
                kept.append(token_id)
        return np.array(kept, dtype=np.int64)

    def _spelled(self, data: bytes) -> list[int] | None:
        """Tokens that spell `data`, few rather than many; None where none do."""
        best: list[list[int] | None] = [[]] + [None] * len(data)
        for place in range(len(data)):
            so_far = best[place]
            if so_far is None:
                continue
            for token_id in self._spellings.beginnings(data, place):
                end = place + len(self._spellings.by_id[token_id])
                known = best[end]
                if known is None or len(known) > len(so_far) + 1:
                    best[end] = [*so_far, token_id]
        return best[-1]

    def _can_spell(self, data: bytes) -> bool:
        """Whether every ending of `data` is spelled by some tokens: a text may already end with its beginning."""
        return all(self._spelled(data[place:]) is not None for place in range(len(data)))


class PreludeState:
    """Where an answer stands in a prelude, or in its tail."""

    __slots__ = ("_marks", "_prelude", "_tail")

    def __init__(
        self, prelude: Prelude, marks: Sequence[tuple[int, int, int]] = (), tail: BackendState | None = None
    ) -> None:
        """marks: for the beginning and each token (state, tokens begun in its part, tokens that the tail took)."""
        self._prelude, self._tail = prelude, tail
        self._marks = list(marks) or [(prelude.scanner.start, 0, 0)]

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed as the tail does."""
        state, n_tokens, _ = self._marks[-1]
        if state != END:
            row.numpy().view(np.uint32)[:] = self._prelude.row(state, n_tokens, row.numel())
        elif self._tail is not None:
            self._tail.fill(row)
        else:
            row.zero_()

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is."""
        state, n_tokens, _ = self._marks[-1]
        prelude = self._prelude
        if state == END:
            if self._tail is None or not self._tail.advance(token_id):
                return False
            self._marks.append((END, 0, 1))
            return True
        spelling = prelude.spelling(token_id)
        table, _ = prelude.text.table(state, n_tokens)
        after, rest = prelude.rest(table, state, spelling)
        if after == DEAD or not spelling:
            return False
        if after != END:
            part = prelude.scanner.part
            self._marks.append((after, n_tokens + 1 if part[after] == part[state] else 0, 0))
            return True
        tail, taken = prelude.entered(rest)
        if rest and tail is None:
            return False
        self._tail = tail
        self._marks.append((END, 0, taken))
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        undone = self._marks[len(self._marks) - n :]
        del self._marks[len(self._marks) - n :]
        if self._marks[-1][0] != END:
            self._tail = None
        elif self._tail is not None:
            self._tail.rollback(sum(taken for _, _, taken in undone))

    def fork(self) -> "PreludeState":
        """An independent copy."""
        return PreludeState(self._prelude, self._marks, None if self._tail is None else self._tail.fork())

    def forced_bytes(self) -> bytes:
        """The bytes that must come next."""
        state, n_tokens, _ = self._marks[-1]
        if state == END:
            return b"" if self._tail is None else self._tail.forced_bytes()
        forced = bytearray()
        table, _ = self._prelude.text.table(state, n_tokens)
        while state != END and not self._prelude.text.accepts(state, len(self._marks) - 1 + len(forced)):
            options = np.flatnonzero(table[state] != DEAD)
            if len(options) != 1:
                return bytes(forced)
            forced.append(int(options[0]))
            after = int(table[state, options[0]])
            if self._prelude.scanner.part[after] != self._prelude.scanner.part[state]:
                table = self._prelude.scanner.table  # how many tokens are left there depends on how this is spelled
            state = after
        tail = self._prelude.tail
        return bytes(forced) + (tail.forced_bytes() if state == END and tail is not None else b"")

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence."""
        state = self._marks[-1][0]
        if state == END:
            return True if self._prelude.tail is None else self._tail is not None and self._tail.is_accepting
        return self._prelude.text.accepts(state, len(self._marks) - 1)
