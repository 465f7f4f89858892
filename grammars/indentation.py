"""Indented JSON: an overlay on a grammar that allows white space anywhere between the tokens of JSON.

A line break can promise too much: after `{` that a member follows, after a value that the bracket closes. So a token
with such a break in it is legal only where the grammar allows the promise to be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grammars.dialects import get_dialect
from grammars.indent_cursor import IndentCursor
from grammars.indent_table import Edit, IndentTable, Promise
from grammars.matcher import BackendState
from grammars.spellings import Spellings
from grammars.token_run import packed
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch


class Mode(Enum):
    """Where there is no layout."""

    UNBEGUN = "the first byte will say whether the answer is a list of calls"
    TEXT = "the answer is no JSON"


Position = IndentCursor | Mode


@dataclass(frozen=True, slots=True)
class Indentation:
    """The rule, as an overlay of a plan (`plan.Overlay`).

    indent: spaces a level. dialect: of tool calls, whose arguments alone are indented; None for JSON as a whole.
    has_answer: what is no call is JSON, rather than text.
    """

    indent: int
    dialect: str | None = None
    has_answer: bool = False

    def wrap(self, state: BackendState, vocabulary: Vocabulary, spellings: Spellings) -> BackendState:
        """The start state under the rule."""
        table = IndentTable(spellings, vocabulary.n_words)
        start = IndentCursor(self.indent) if self.dialect is None else Mode.UNBEGUN
        return IndentedState(self, table, state, spellings, vocabulary.text_row, [start])

    @property
    def opening(self) -> int:
        """The byte that a list of calls begins with."""
        return ord("[" if self.dialect is not None and get_dialect(self.dialect).calls_are == "array" else "{")

    @property
    def calls(self) -> IndentCursor:
        """The cursor of a list of calls, whose own levels are compact."""
        at = () if self.dialect is None else get_dialect(self.dialect).calls_at
        return IndentCursor(self.indent, base=1 if at is None else len(at) + 2)

    def begin(self, byte: int) -> Position:
        """The position before the first byte, once that is known."""
        if byte == self.opening:
            return self.calls
        return IndentCursor(self.indent) if self.has_answer else Mode.TEXT


class IndentedState:
    """The state of another backend, under the rule."""

    __slots__ = ("_inner", "_positions", "_rule", "_spellings", "_table", "_text_row")

    def __init__(
        self,
        rule: Indentation,
        table: IndentTable,
        inner: BackendState,
        spellings: Spellings,
        text_row: "torch.Tensor",
        positions: Sequence[Position],
    ) -> None:
        """positions: one before each token taken and one after them."""
        self._rule, self._table, self._inner = rule, table, inner
        self._spellings, self._text_row, self._positions = spellings, text_row, list(positions)

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed as the other backend does."""
        self._inner.fill(row)
        row &= self._text_row
        words = row.numpy().view(np.uint32)
        match self._positions[-1]:
            case IndentCursor() as cursor:
                self._apply(self._table.edit(cursor), words)
            case Mode.UNBEGUN:
                self._apply_first(words)

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is. So does one that the other backend raises at."""
        spelling = self._spellings.by_id[token_id]
        after = self._read(spelling)
        if after is None or not self._inner.advance(token_id):
            return False
        is_kept = False
        try:
            if isinstance(after, IndentCursor) and after.is_promise and b"\n" in spelling:
                is_kept = self._keeps(after)
            else:
                is_kept = True
        finally:
            if not is_kept:
                self._inner.rollback(1)
        if not is_kept:
            return False
        self._positions.append(after)
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        self._inner.rollback(n)
        del self._positions[len(self._positions) - n :]

    def fork(self) -> "IndentedState":
        """An independent copy; positions never change, so they are shared."""
        return IndentedState(
            self._rule, self._table, self._inner.fork(), self._spellings, self._text_row, self._positions
        )

    def forced_bytes(self) -> bytes:
        """The white space that must come next, or what the other backend forces."""
        at = self._positions[-1]
        return (at.forced() if isinstance(at, IndentCursor) else b"") or self._inner.forced_bytes()

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence."""
        return self._inner.is_accepting

    def _apply(self, edit: Edit, words: NDArray[np.uint32]) -> None:
        """Clear what breaks the rule."""
        broken = [promise.ids for promise in edit.promises if not self._is_kept(promise, words)]
        words &= edit.legal
        if broken:
            words &= ~packed(np.concatenate(broken), words.size)

    def _apply_first(self, words: NDArray[np.uint32]) -> None:
        """The same before the first byte, which says what the layout is."""
        first = self._spellings.first
        ids = np.flatnonzero(first == self._rule.opening)
        calls = packed(ids, words.size)
        others = words & ~calls
        words &= calls
        self._apply(self._table.edit(self._rule.calls), words)
        if self._rule.has_answer:
            self._apply(self._table.edit(IndentCursor(self._rule.indent)), others)
        words |= others

    def _is_kept(self, promise: Promise, words: NDArray[np.uint32]) -> bool:
        """Whether the promise can be kept under the other backend's mask `words`."""
        held = _held(words, promise.ids)
        if not held.size:
            return True
        if _held(words, promise.witnesses).size:
            return True
        if promise.is_complete:
            return False
        state = self._inner.fork()
        return state.advance(int(held[0])) and self._follows(promise.follows, state)

    def _keeps(self, after: IndentCursor) -> bool:
        """Whether the promise of the token just taken can be kept."""
        if after.is_closing:
            return self._follows(bytes([after.closer]), self._inner)
        return self._follows(b'"' if after.is_key else b'"{[-0123456789tfn', self._inner)

    def _follows(self, options: bytes, state: BackendState) -> bool:
        """Whether the state takes a token that begins with one of these bytes."""
        import torch

        row = torch.zeros_like(self._text_row)
        state.fill(row)
        row &= self._text_row
        held = np.flatnonzero(np.unpackbits(row.numpy().view(np.uint8), bitorder="little"))
        return bool(np.isin(self._spellings.first[held], np.frombuffer(options, dtype=np.uint8)).any())

    def _read(self, spelling: bytes) -> Position | None:
        """The position after these bytes; None where the layout has others."""
        at = self._positions[-1]
        if not spelling or at is Mode.TEXT:
            return at if spelling else None
        if at is Mode.UNBEGUN:
            at = self._rule.begin(spelling[0])
        for byte in spelling:
            if not isinstance(at, IndentCursor):
                return at
            after = at.step(byte)
            if after is None:
                return None
            at = after
        return at


def _held(words: NDArray[np.uint32], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of `ids` whose bits are set."""
    return np.asarray(ids[(words[ids >> 5] >> (ids & 31).astype(np.uint32) & 1) == 1])
