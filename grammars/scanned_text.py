"""Masks of the free and fixed texts before another constraint, as far as they do not depend on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from grammars.constraint import Choice, FreeText
from grammars.scanner import DEAD, END, Scanner, scanner
from grammars.token_run import Ids, TokenRun, packed


class ScannedText:
    """The automaton of some parts, and what the tokens of one vocabulary do in it. Rows are made when first asked for.

    limits: tokens that may begin in each part, None where any number may.
    """

    def __init__(self, parts: Sequence[FreeText | Choice], run: TokenRun, *, may_end: bool = False) -> None:
        """parts, may_end: as `scanner` takes them."""
        self.scanner: Scanner = scanner(parts, may_end=may_end)
        self.may_end = may_end
        self.limits = [part.max_tokens if isinstance(part, FreeText) else None for part in parts]
        self._hurried = {
            part: self.scanner.hurried(part) for part, limit in enumerate(self.limits) if limit is not None
        }
        self._run = run
        self._rows: dict[tuple[int, bool], tuple[NDArray[np.uint32], tuple[tuple[int, int], ...]]] = {}

    def accepts(self, state: int, n_tokens: int) -> bool:
        """Whether an answer of so many tokens may end at `state`: an empty one may not where it need not be free text
        to its end."""
        return state in self.scanner.accepting and (n_tokens > 0 or not self.may_end)

    def table(self, state: int, n_tokens: int) -> tuple[NDArray[np.int32], bool]:
        """The transitions at `state`, and whether the tokens of its part are used up (n_tokens began in it)."""
        part = int(self.scanner.part[state])
        limit = self.limits[part] if part >= 0 else None
        if limit is None or n_tokens < limit:
            return self.scanner.table, False
        return self._hurried[part], True

    def row(
        self, state: int, n_tokens: int, n_words: int
    ) -> tuple[NDArray[np.uint32], tuple[tuple[int, int], ...], bool]:
        """At `state`: (the mask of the tokens that end within the parts, uint32 [n_words]; those that run on behind
        them, each with the place in its bytes; whether the tokens of the part are used up). Nobody may write into it.
        """
        table, is_used_up = self.table(state, n_tokens)
        key = (state, is_used_up)
        if key not in self._rows:
            self._rows[key] = self._new_row(table, state, n_words)
        return (*self._rows[key], is_used_up)

    def _new_row(
        self, table: NDArray[np.int32], state: int, n_words: int
    ) -> tuple[NDArray[np.uint32], tuple[tuple[int, int], ...]]:
        run = self._run
        legal: list[Ids] = []
        running_on: list[tuple[int, int]] = []
        for n_read, live, states in run.walk(state, lambda states, data: table[states, data]):
            has_ended = run.lengths[live] == n_read
            legal.append(run.ids[live[has_ended]])
            is_over = ~has_ended & (states == END)
            running_on += ((token_id, n_read) for token_id in run.ids[live[is_over]].tolist())
            states[is_over] = DEAD
        row = packed(np.concatenate(legal), n_words) if legal else np.zeros(n_words, dtype=np.uint32)
        return row, tuple(running_on)
