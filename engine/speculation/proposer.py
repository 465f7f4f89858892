"""What every source of drafts has in common."""

from dataclasses import dataclass
from typing import Protocol

from engine.request import Request

__all__ = ["DraftTree", "Proposer"]


@dataclass(frozen=True, slots=True)
class DraftTree:
    """Proposed continuations of one request.

    tokens: one per node, parents before children. parents: index of each node's parent, -1 for a child of the last
    committed token.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    @classmethod
    def chain(cls, tokens: tuple[int, ...]) -> "DraftTree":
        """A single path."""
        return cls(tokens, tuple(range(-1, len(tokens) - 1)))

    @property
    def is_chain(self) -> bool:
        """Whether there is one path only."""
        return self.parents == tuple(range(-1, len(self.tokens) - 1))


class Proposer(Protocol):
    """Guesses what follows a request's tokens. A wrong guess costs time, never a token of the output."""

    def propose(self, request: Request, budget: int) -> DraftTree:
        """At most `budget` nodes after `request.tokens`; an empty tree where there is nothing to say."""
        ...
