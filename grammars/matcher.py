"""The token-level state of one answer under one constraint: masks, steps, and the way back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from grammars.errors import MatcherFailed
from grammars.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import torch


class BackendState(Protocol):
    """What a backend must do; it never sees a stop token, a special token or padding."""

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of the legal text tokens in `row` (int32 [n_words], contiguous, CPU); other bits are free.

        Raises MatcherFailed when the backend runs out of its limits.
        """

    def advance(self, token_id: int) -> bool:
        """Take a text token; False, with the state unchanged, when it is illegal. Whatever it raises, the state is
        unchanged as well: a guess may be beyond the limits, and the answer goes on."""

    def rollback(self, n: int) -> None:
        """Undo the last `n` tokens."""

    def fork(self) -> "BackendState":
        """An independent copy."""

    def forced_bytes(self) -> bytes:
        """Bytes that every continuation begins with; `b""` where none are known or the text may end here."""

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence of the grammar."""


class Matcher:
    """One answer's position in its grammar. Not thread-safe; `fork` gives an independent copy.

    A mask row is a packed int32 tensor [ceil(V / 32)]: bit i % 32 of word i // 32 says whether token i is legal. Stop
    tokens are legal exactly when `is_complete`, all other special tokens and padding never.
    """

    def __init__(self, vocabulary: Vocabulary, state: BackendState, n_tokens: int = 0) -> None:
        self._vocabulary, self._state, self._n_tokens = vocabulary, state, n_tokens
        self._terminated = False
        self._row: torch.Tensor | None = None  # the mask at this position, once asked for
        self._view: tuple[torch.Tensor, np.ndarray] | None = None  # the row filled last, as torch and as numpy see it

    @property
    def is_complete(self) -> bool:
        """The text so far is a whole instance, so a stop token is legal (or was just taken)."""
        return self._terminated or self._state.is_accepting

    @property
    def is_terminated(self) -> bool:
        """A stop token has been taken: nothing is legal any more."""
        return self._terminated

    @property
    def n_tokens(self) -> int:
        """Tokens taken so far, the stop token included."""
        return self._n_tokens

    def fill_mask(self, row: "torch.Tensor") -> None:
        """Write the mask of this position into `row`, an int32 CPU tensor [n_words] (all zero once terminated).

        Raises MatcherFailed when the backend runs out of its limits, ValueError for a row of another shape, type or
        device.
        """
        view = self._view
        if view is None or view[0] is not row:
            self._check(row)
            view = self._view = row, row.numpy()
        if self._row is not None:
            row.copy_(self._row)
        else:
            self._write(row, view[1])

    def advance(self, token_id: int) -> bool:
        """Take a token. False, with the state unchanged, when it is illegal here. Raises MatcherFailed as `fill_mask`,
        with the state unchanged, too."""
        if self._terminated:
            return False
        if token_id in self._vocabulary.stop_ids:
            if not self._state.is_accepting:
                return False
            self._terminated = True
        elif (
            token_id in self._vocabulary.silent_ids
            or not 0 <= token_id < self._vocabulary.size
            or not self._state.advance(token_id)
        ):
            return False
        self._n_tokens += 1
        self._row = None
        return True

    def rollback(self, n: int) -> None:
        """Undo the last `n` tokens. Raises ValueError when fewer were taken."""
        if not 0 <= n <= self._n_tokens:
            raise ValueError(f"cannot roll back {n} tokens: {self._n_tokens} were taken")
        if n == 0:
            return
        self._n_tokens -= n
        self._row = None
        if self._terminated:
            self._terminated = False
            n -= 1
        if n:
            self._state.rollback(n)

    def fork(self) -> "Matcher":
        """An independent matcher at the same position."""
        other = Matcher(self._vocabulary, self._state.fork(), self._n_tokens)
        other._terminated, other._row = self._terminated, self._row
        return other

    def forced(self) -> int | None:
        """The only legal token, if there is exactly one; stop tokens count. Raises MatcherFailed as `fill_mask`."""
        words = self._mask()
        used = words.nonzero()
        if used.numel() != 1:
            return None
        word = int(words[used[0, 0]]) & 0xFFFFFFFF
        return int(used[0, 0]) * 32 + word.bit_length() - 1 if word & (word - 1) == 0 else None

    def forced_bytes(self) -> bytes:
        """Text that must come next, as far as the backend sees: a draft, since it has several spellings in tokens."""
        return b"" if self.is_complete else self._state.forced_bytes()

    def trial(self, tail: Sequence[int]) -> "tuple[torch.Tensor, int]":
        """Masks along a draft: (int32 [n_valid + 1, n_words], n_valid), where `tail[:n_valid]` is legal.

        Row i is the mask before `tail[i]`; the last row is the mask after the legal part, zero when that ended in a
        stop token. The state is always as before. A backend at its limits raises nothing: it ends the legal part before
        that token.
        """
        import torch

        rows: list[torch.Tensor] = []
        taken = 0
        try:
            rows.append(self._mask())
            for token_id in tail:
                if not self.advance(token_id):
                    break
                taken += 1
                rows.append(self._mask())
        except MatcherFailed:
            if not rows:
                return torch.zeros(1, self._vocabulary.n_words, dtype=torch.int32), 0
        finally:
            self.rollback(taken)
        self._row = rows[0]
        return torch.stack(rows), len(rows) - 1

    def _mask(self) -> "torch.Tensor":
        """The mask of this position, computed once; nobody may write into it."""
        if self._row is None:
            import torch

            row = torch.zeros(self._vocabulary.n_words, dtype=torch.int32)
            self._write(row, row.numpy())
            self._row = row
        return self._row

    def _write(self, row: "torch.Tensor", words: "np.ndarray") -> None:
        """The mask of this position into `row`, of which `words` is a view."""
        words.fill(0)  # what an earlier mask left must never show through
        if self._terminated:
            return
        self._state.fill(row)
        vocabulary = self._vocabulary
        words &= vocabulary.text_words
        if self._state.is_accepting:
            words |= vocabulary.stop_words

    def _check(self, row: "torch.Tensor") -> None:
        import torch

        n_words = self._vocabulary.n_words
        if row.shape != (n_words,) or row.dtype != torch.int32 or row.device.type != "cpu" or not row.is_contiguous():
            kind = f"{row.dtype} {list(row.shape)} on {row.device}"
            raise ValueError(f"a mask row is a contiguous int32 CPU tensor [{n_words}], not {kind}")
