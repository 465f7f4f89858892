"""Which tokens keep to an indentation: one mask for each position in the layout, made when it is first met.

It depends on no grammar, so positions recur from answer to answer. What only a grammar can say is left open: a token
with a line break after which a member, or the closing bracket, must follow is listed as a promise.
"""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from grammars.indent_cursor import IndentCursor, Place
from grammars.spellings import Spellings
from grammars.token_run import Ids, TokenRun, packed

_DEAD: Final = -1
_UNKNOWN: Final = -2
_MAX_EDITS: Final = 128
_MAX_STATES: Final = 8_192


@dataclass(frozen=True, slots=True)
class Promise:
    """Tokens that are legal if, after the bytes `before`, one of the bytes `follows` may come.

    witnesses: tokens of exactly `before` and one of those bytes. is_complete: there is one for each of them.
    """

    before: bytes
    ids: Ids
    follows: bytes
    witnesses: Ids
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Edit:
    """legal: mask of the tokens that keep to the layout, uint32 [n_words]. promises: of some of them."""

    legal: NDArray[np.uint32]
    promises: tuple[Promise, ...]


class IndentTable:
    """The masks of one vocabulary. Thread-safe; bounded, and begun anew when it is full."""

    def __init__(self, spellings: Spellings, n_words: int) -> None:
        self._spellings, self._n_words = spellings, n_words
        self._lock = Lock()
        self._clear()

    def edit(self, cursor: IndentCursor) -> Edit:
        """What may come at `cursor`."""
        with self._lock:
            found = self._edits.get(cursor)
            if found is None:
                if len(self._edits) >= _MAX_EDITS or len(self._cursors) >= _MAX_STATES:
                    self._clear()
                found = self._edits[cursor] = self._new_edit(cursor)
            return found

    def _clear(self) -> None:
        self._edits: dict[IndentCursor, Edit] = {}
        self._cursors: list[IndentCursor] = []
        self._numbers: dict[IndentCursor, int] = {}
        self._table = np.full((64, 256), _UNKNOWN, dtype=np.int32)

    @cached_property
    def _run(self) -> TokenRun:
        return TokenRun(self._spellings.by_id)

    @cached_property
    def _by_spelling(self) -> dict[bytes, int]:
        return {spelling: i for i, spelling in enumerate(self._spellings.by_id) if spelling}

    def _new_edit(self, cursor: IndentCursor) -> Edit:
        run, start = self._run, self._number(cursor)
        is_string = cursor.place is Place.STRING
        if is_string:
            # Only what follows its quote can be wrong.
            of = run.places(self._spellings.opening)
        else:
            self._read(start)
            of = run.beginning(self._table[start] != _DEAD)
        kept: list[Ids] = []
        promising: dict[bytes, list[int]] = {}
        after: dict[bytes, IndentCursor] = {}
        for n_read, live, states in run.walk(start, self._step, of):
            has_ended = run.lengths[live] == n_read
            ids, ends = run.ids[live[has_ended]], states[has_ended]
            kept.append(ids)
            if not n_read:
                continue
            for number in np.unique(ends).tolist():
                end = self._cursors[number]
                if end.place is not Place.INDENTING or not end.is_promise:
                    continue
                for token_id in ids[ends == number].tolist():
                    spelling = self._spellings.by_id[token_id]
                    if b"\n" in spelling:
                        before = spelling[: spelling.rindex(b"\n")]
                        promising.setdefault(before, []).append(token_id)
                        after[before] = end
        legal = packed(np.concatenate(kept), self._n_words) if kept else np.zeros(self._n_words, dtype=np.uint32)
        if is_string:
            legal |= ~packed(self._spellings.opening, self._n_words)
        return Edit(legal, tuple(self._promise(before, ids, after[before]) for before, ids in promising.items()))

    def _promise(self, before: bytes, ids: list[int], end: IndentCursor) -> Promise:
        if end.is_closing:
            follows = bytes([end.closer])
        else:
            follows = b'"' if end.is_key else b'"{[-0123456789tfn'
        known = [self._by_spelling.get(before + bytes([byte])) for byte in follows]
        witnesses = [token_id for token_id in known if token_id is not None]
        return Promise(
            before,
            np.array(ids, dtype=np.int64),
            follows,
            np.array(witnesses, dtype=np.int64),
            len(witnesses) == len(follows),
        )

    def _step(self, states: NDArray[np.int32], data: NDArray[np.uint8]) -> NDArray[np.int32]:
        after = self._table[states, data]
        if (after == _UNKNOWN).any():
            for number in np.unique(states[after == _UNKNOWN]).tolist():
                self._read(number)
            after = self._table[states, data]
        return after

    def _read(self, number: int) -> None:
        """Fill the row of a state."""
        cursor = self._cursors[number]
        row = [_DEAD] * 256
        for byte in range(256):
            after = cursor.step(byte)
            if after is not None:
                row[byte] = number if after is cursor else self._number(after)
        self._table[number] = row

    def _number(self, cursor: IndentCursor) -> int:
        number = self._numbers.get(cursor)
        if number is None:
            number = self._numbers[cursor] = len(self._cursors)
            self._cursors.append(cursor)
            if number >= len(self._table):
                more = np.full((len(self._table), 256), _UNKNOWN, dtype=np.int32)
                self._table = np.concatenate([self._table, more])
        return number
