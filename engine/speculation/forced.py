"""Tokens that a grammar leaves no choice about."""

from collections.abc import Mapping

from engine.constrain import GuardedMatcher
from engine.request import Request
from engine.speculation.proposer import DraftTree

__all__ = ["ForcedTokens"]


class ForcedTokens:
    """Proposes the run of tokens of which each is the only one that the mask allows.

    Sampling could not have chosen otherwise, so the tree is certain and the output is what it would have been; only the
    forward passes between those tokens are saved, and their keys and values are computed as one chunk.
    """

    def __init__(self, matchers: Mapping[str, GuardedMatcher]) -> None:
        """matchers: by request id, those of constrained requests; read at each call."""
        self._matchers = matchers

    def propose(self, request: Request, budget: int) -> DraftTree:
        """The forced run, or an empty tree. Raises GrammarFault where the matcher fails."""
        matcher = self._matchers.get(request.id)
        if matcher is None or budget < 1:
            return DraftTree(is_certain=True)
        return DraftTree.chain(tuple(matcher.forced_run(budget)), is_certain=True)
