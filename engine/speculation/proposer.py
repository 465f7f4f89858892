"""What every source of drafts has in common. No torch.

    the cat sat        committed tokens
        |-- on         node 0, parent -1       what a tree says: after "sat" comes "on" or "down";
        |   `-- the    node 1, parent 0        after "sat on", "the"
        `-- down       node 2, parent -1

A chain is a tree without branches. Nobody needs to be right: a wrong guess costs time, never a token of the output.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_NODES", "DraftTree", "Proposer", "Situation", "Source"]

MAX_NODES = 63
"""Of a tree: with the last committed token, its root, they fit the 64 bits of an ancestor mask."""


class Source(enum.StrEnum):
    """Where a drafted token comes from. `forced`: text that the grammar leaves no choice about, which several tokens
    can spell; `ngram`: what followed the same words earlier in the context; `prediction`: an answer that somebody
    expects; `draft_model`: the small model of the pair; `heads`: heads on the target's own hidden states.
    """

    FORCED = "forced"
    NGRAM = "ngram"
    PREDICTION = "prediction"
    DRAFT_MODEL = "draft_model"
    HEADS = "heads"


@dataclass(frozen=True, slots=True)
class DraftTree:
    """Proposed continuations of one request.

    tokens: one per node, parents before children. parents: index of each node's parent, -1 for a child of the last
    committed token. probabilities: how sure whoever proposed a node is that it comes after its parent, from 0 to 1;
    for the draft model, what it drew the token with. sources: who proposed each node. distributions: float32
    [m, vocab], what nodes were drawn from, and distribution_of, for each node its row there or -1 for one that was
    chosen with certainty; only where drafts are verified by their ratio (`kernels.reference_verify.accept_ratio`).
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    sources: tuple[Source, ...] = ()
    distributions: "torch.Tensor | None" = None
    distribution_of: tuple[int, ...] = ()

    @classmethod
    def chain(cls, tokens: Sequence[int], probabilities: Sequence[float], source: Source) -> "DraftTree":
        """A single path. Raises ValueError where there are not as many probabilities as tokens."""
        n = len(tokens)
        if len(probabilities) != n:
            raise ValueError(f"{len(probabilities)} probabilities for {n} tokens: give one for each")
        return cls(tuple(tokens), tuple(range(-1, n - 1)), tuple(probabilities), (source,) * n)

    @property
    def is_chain(self) -> bool:
        """Whether there is one path only."""
        return self.parents == tuple(range(-1, len(self.tokens) - 1))

    def __len__(self) -> int:
        return len(self.tokens)

    def __bool__(self) -> bool:
        return bool(self.tokens)


@dataclass(slots=True)
class Situation:
    """What a proposer may look at: a request at the point where the draft goes on.

    id: of the request; what a proposer remembers of it is kept under this. tokens: of prompt and answer, committed ones
    only; n_prompt: how many are the prompt's. drafted: tokens that others have already proposed after them, in order.
    prediction: tokens that somebody expects as the whole answer, or none. forced_text: bytes that the grammar says must
    come next, after `drafted`. hidden: the target's hidden state [hidden_size], before its final norm, that the newest
    token was drawn from; None where no proposer wants it, or tokens were forced since.
    """

    id: str
    tokens: Sequence[int]
    n_prompt: int
    drafted: Sequence[int] = ()
    prediction: Sequence[int] = ()
    forced_text: bytes = b""
    hidden: "torch.Tensor | None" = None


class Proposer(Protocol):
    """Guesses what follows. It may keep what it learns about a request until `forget`."""

    source: Source
    wants_hidden: bool
    """Whether it reads `Situation.hidden`, which is kept for it only then."""

    def propose(self, situation: Situation, budget: int) -> DraftTree:
        """At most `budget` nodes after `tokens` and `drafted`; an empty tree where there is nothing to say."""
        ...

    def forget(self, request_id: str) -> None:
        """Drop what is kept of a request; unknown ids are ignored."""
        ...
