"""A matcher led along a draft token by token, and back."""

import contextlib
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import torch

from engine.guess_budget import GuessBudget
from grammars.errors import MatcherFailed

__all__ = ["TrialWalk", "WalkingMatcher", "allows"]

T = TypeVar("T")


class WalkingMatcher(Protocol):
    """The part of a matcher that a walk uses; see `guarded_matcher.TokenMatcher`."""

    def fill_mask(self, row: torch.Tensor) -> None:
        """The mask of this position."""

    def advance(self, token_id: int) -> bool:
        """Take a token; False, and no change, where it is not allowed."""

    def rollback(self, n: int) -> None:
        """Take back the last `n` tokens."""

    def forced_bytes(self) -> bytes:
        """Bytes that every continuation begins with."""


class TrialWalk:
    """Where an answer would stand after each token of a draft that is still being made, until `close` puts the matcher
    back to where it was. In between nobody else may use it.

    What a backend cannot say about a guess, or not soon, only ends the walk, and those that follow: `advance` returns
    False. Whatever else it raises puts the matcher back, and is raised as what `fault` makes of it.
    """

    def __init__(
        self,
        matcher: WalkingMatcher,
        mask: np.ndarray,
        end_ids: frozenset[int],
        fault: Callable[[Exception], Exception],
        budget: GuessBudget,
    ) -> None:
        """mask: int32 [n_words], what may come first. budget: of all walks for one answer."""
        self._matcher, self._end_ids, self._fault, self._budget = matcher, end_ids, fault, budget
        self.mask = mask
        """What may come next; each position has its own."""
        self.seconds = 0.0
        """What finding the masks on the way took, by the clock."""
        self._taken = 0

    def allows(self, token: int) -> bool:
        """Whether a token may come next and is no end."""
        return allows(self.mask, token) and token not in self._end_ids

    def advance(self, token: int) -> bool:
        """Take a token and find the mask after it; False, and no change, where that is not allowed or unknown, or where
        the budget of guesses is spent."""
        return not self._budget.is_spent and self.allows(token) and self._guarded(self._advance, token)

    def forced_text(self) -> bytes:
        """Bytes that must come next, as far as the backend sees."""
        return self._guarded(self._forced_text)

    def back(self, n: int, mask: np.ndarray) -> None:
        """Take back n tokens. mask: of the position there."""
        self._taken -= n
        self._guarded(self._matcher.rollback, n)
        self.mask = mask

    def close(self) -> None:
        """Take back what is left."""
        n, self._taken = self._taken, 0
        if n:
            self._guarded(self._matcher.rollback, n)

    def _advance(self, token: int) -> bool:
        began = self._budget.begin()
        try:
            if not self._matcher.advance(token):
                return False
        except MatcherFailed:
            self._budget.give_up()
            return False
        self._taken += 1
        row = torch.zeros(len(self.mask), dtype=torch.int32)
        try:
            self._matcher.fill_mask(row)
        except MatcherFailed:
            self._budget.give_up()
            self._taken -= 1
            self._matcher.rollback(1)
            return False
        self.seconds += self._budget.count(began)
        self.mask = row.numpy()
        return True

    def _forced_text(self) -> bytes:
        try:
            return self._matcher.forced_bytes()
        except MatcherFailed:
            return b""

    def _guarded(self, method: Callable[..., T], *arguments: int) -> T:
        try:
            return method(*arguments)
        except Exception as error:
            n, self._taken = self._taken, 0
            with contextlib.suppress(Exception):  # the request ends anyway
                self._matcher.rollback(n)
            raise self._fault(error) from error


def allows(mask: np.ndarray, token: int) -> bool:
    """Whether a mask int32 [n_words] holds a token, which may be any number."""
    return 0 <= token < 32 * len(mask) and bool(mask.item(token >> 5) >> (token & 31) & 1)
