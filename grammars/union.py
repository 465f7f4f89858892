"""One of several constraints: their states side by side, each until it refuses a token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from grammars.matcher import BackendState

if TYPE_CHECKING:
    import torch


class UnionState:
    """The states of all branches. A branch that refused a token waits where it is, and lives again once that is undone.

    Exact whatever engines hold the branches: a text is legal when a branch takes it.
    """

    __slots__ = ("_branches", "_n_tokens", "_taken")

    def __init__(self, branches: Sequence[BackendState], taken: Sequence[int] | None = None, n_tokens: int = 0) -> None:
        """taken: the tokens that each branch took (none by default). n_tokens: those of the answer."""
        self._branches, self._n_tokens = list(branches), n_tokens
        self._taken = [0] * len(self._branches) if taken is None else list(taken)

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed as a branch does."""
        row.zero_()
        other = row.clone()
        for branch in self._live():
            other.zero_()
            branch.fill(other)
            row |= other

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is. So does one that a branch raises at."""
        at = self._n_tokens
        try:
            for i, branch in enumerate(self._branches):
                if self._taken[i] == at and branch.advance(token_id):
                    self._taken[i] = at + 1
                    self._n_tokens = at + 1
        except BaseException:
            self.rollback(self._n_tokens - at)
            raise
        return self._n_tokens > at

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        self._n_tokens -= n
        for i, branch in enumerate(self._branches):
            if self._taken[i] > self._n_tokens:
                branch.rollback(self._taken[i] - self._n_tokens)
                self._taken[i] = self._n_tokens

    def fork(self) -> "UnionState":
        """An independent copy."""
        return UnionState([branch.fork() for branch in self._branches], self._taken, self._n_tokens)

    def forced_bytes(self) -> bytes:
        """What every live branch forces."""
        first, *others = [b"" if branch.is_accepting else branch.forced_bytes() for branch in self._live()]
        n = 0
        while n < len(first) and all(other[n : n + 1] == first[n : n + 1] for other in others):
            n += 1
        return first[:n]

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence of a branch."""
        return any(branch.is_accepting for branch in self._live())

    def _live(self) -> list[BackendState]:
        return [branch for branch, taken in zip(self._branches, self._taken, strict=True) if taken == self._n_tokens]
