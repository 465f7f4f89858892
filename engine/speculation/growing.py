"""The draft of one request while it grows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.generation import Generation
from engine.request import SamplingParams
from engine.speculation.acceptance import Trust
from engine.speculation.draft import DraftBuilder
from engine.speculation.draft_model import Guess
from engine.speculation.proposer import DraftTree, Situation, Source
from engine.trial_walk import TrialWalk

__all__ = ["Branch", "Growing", "Memory", "ends", "side_branches"]


@dataclass(slots=True)
class Memory:
    """What is known of a request between its steps. peek: what a free proposer would have said next: a source, a token,
    its belief. n_patient: steps until it is asked again whether the draft model should compute its prompt; catches_up:
    it is to, and may be under way. n_steps: in which drafts were thought of. gain: tokens that the free proposers
    brought lately, each time they were asked."""

    draft_params: SamplingParams
    trusts: dict[Source, Trust] = field(default_factory=dict)
    peek: tuple[Source, int, float] | None = None
    n_patient: int = 0
    catches_up: bool = False
    n_steps: int = 0
    gain: float = 1.0

    def trust(self, source: Source) -> Trust:
        """How the request treats a source."""
        found = self.trusts.get(source)
        if found is None:
            found = self.trusts[source] = Trust()
        return found


@dataclass(frozen=True, slots=True)
class Branch:
    """Another way to go on after `depth` tokens of the main path, below the node `parent`."""

    depth: int
    parent: int
    tokens: tuple[int, ...]
    beliefs: tuple[float, ...]
    source: Source


class Growing:
    """The draft of one request while it grows: a main path, at whose end is `tip`, and branches that may join it."""

    def __init__(self, generation: Generation, memory: Memory, room: int) -> None:
        self.generation, self.memory, self.room = generation, memory, room
        self.builder = DraftBuilder()
        self.tip, self.reach = -1, 1.0
        self.drafted: list[int] = []
        self.branches: list[Branch] = []
        self.walk: TrialWalk | None = None
        self.masks: list[np.ndarray] = []  # of the walk: before the first token, and after each of the main path

    @property
    def walks_with_model(self) -> bool:
        """Whether its first token is the draft model's; else the free proposers have had their say there."""
        return bool(self.drafted) and self.builder.evidence(0)[1] is Source.DRAFT_MODEL

    @property
    def is_masked(self) -> bool:
        """Whether its tokens are drawn under a grammar's masks."""
        return self.generation.matcher is not None

    def situation(self, forced_text: bytes = b"") -> Situation:
        """What proposers may look at, at the tip."""
        request = self.generation.request
        return Situation(
            request.id,
            request.tokens,
            request.n_prompt,
            self.drafted,
            self.generation.prediction,
            forced_text,
            self.generation.hidden,
        )

    def append(self, token: int, belief: float, source: Source, reach: float, guess: Guess | None = None) -> None:
        """Go on by a token."""
        distribution = None if guess is None else guess.distribution
        self.tip = self.builder.add(token, self.tip, belief, source, reach, distribution=distribution)
        self.reach = reach
        self.drafted.append(token)

    def follow(self, walk: TrialWalk, token: int) -> bool:
        """Lead the grammar past the newest token; False where it cannot be."""
        if not walk.advance(token):
            return False
        self.masks.append(walk.mask)
        self.builder.set_mask(self.tip, walk.mask)
        return True


def ends(generation: Generation, token: int) -> bool:
    """Whether an answer would end with a token: the target may say so itself, nothing can be drafted after it."""
    return token in generation.end_ids or token in generation.params.stop_token_ids


def side_branches(tree: DraftTree, path: Sequence[int], depth: int, root: int, growing: Growing) -> list[Branch]:
    """The nodes beside the path that was taken of a tree, each with what follows it first."""
    branches, on_path = list[Branch](), set(path)
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents):
        children.setdefault(parent, []).append(node)
    at, node_of = depth, root
    for place in [-1, *path]:
        if place >= 0:
            at, node_of = at + 1, growing.builder.find(node_of, tree.tokens[place]) or 0
        for child in children.get(place, ()):
            if child in on_path:
                continue
            tokens, beliefs, node = list[int](), list[float](), child
            while True:
                tokens.append(tree.tokens[node])
                beliefs.append(tree.probabilities[node])
                if node not in children:
                    break
                node = children[node][0]
            branches.append(Branch(at, node_of, tuple(tokens), tuple(beliefs), tree.sources[child]))
    return branches
