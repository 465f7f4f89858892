"""Writes the drafts of a step, token by token: what may come next, and pays.

The grammar is led along what is written where a request has one, the outlook of the step is charged for every node.
"""

from collections.abc import Sequence

from engine.chunk_limit import Shape
from engine.generation import Generation
from engine.speculation.config import SpeculationConfig
from engine.speculation.controller import Controller
from engine.speculation.draft import DraftBuilder
from engine.speculation.growing import Branch, Growing, ends, side_branches
from engine.speculation.outlook import Outlook, Unlimited
from engine.speculation.proposer import MAX_NODES, DraftTree, Proposer, Source

__all__ = ["DraftWriter"]


class DraftWriter:
    """Lets the drafts of one step grow, and finishes them. What several drafts of a step share is here: its outlook.

    is_probe: what is written now is verified whether it seems to pay or not.
    """

    def __init__(
        self, config: SpeculationConfig, proposers: Sequence[Proposer], controller: Controller, vocab_size: int
    ) -> None:
        """proposers: those that cost next to nothing. vocab_size: of the target; no other token is ever drafted."""
        self._config, self._proposers, self._controller, self._vocab_size = config, proposers, controller, vocab_size
        self._streams: Sequence[Generation] = ()
        self.found_outlook: Outlook | None = None
        """Of the step, if anybody asked for it."""
        self.is_probe = False

    def begin(self, streams: Sequence[Generation]) -> None:
        """Begin a step of these running requests."""
        self._streams, self.found_outlook = streams, None

    @property
    def outlook(self) -> Outlook:
        """Of the coming step; made when it is first asked for, since most steps without drafts need none."""
        outlook = self.found_outlook
        if outlook is None:
            outlook = self.found_outlook = Unlimited()
            if self._config.is_adaptive:
                requests = [generation.request for generation in self._streams]
                rows = [Shape(request.computed, len(request.tokens) - request.computed, 1) for request in requests]
                outlook = self.found_outlook = self._controller.outlook(rows, len(rows))
        return outlook

    def take_outlook(self) -> Outlook | None:
        """The outlook of the step that was begun last, if anybody asked for it; nobody gets it again."""
        outlook, self.found_outlook = self.found_outlook, None
        return outlook

    def estimate(self, growing: Growing, source: Source, belief: float) -> float:
        """The probability that a token of this source is accepted, where it believes so much in it."""
        return self._controller.acceptance.estimate(source, belief, growing.memory.trust(source))

    def forced_text(self, growing: Growing) -> bytes:
        """What the grammar forces before anything was drafted, if that is a source of drafts."""
        matcher = growing.generation.matcher
        if matcher is None or Source.FORCED not in self._config.sources:
            return b""
        return matcher.forced_text()

    def extend_freely(self, growing: Growing, forced_text: bytes, least: float = 0.0) -> None:
        """Go on by what costs nothing to propose, as long as there is something and it pays. least: the estimate from
        which on that is better than a round of the draft model."""
        while growing.room > len(growing.drafted):
            best, best_estimate = DraftTree(), least
            situation = growing.situation(forced_text)
            for proposer in self._proposers:
                tree = proposer.propose(situation, growing.room - len(growing.drafted))
                estimate = self.estimate(growing, proposer.source, tree.probabilities[0]) if tree else 0.0
                if estimate > best_estimate:
                    best, best_estimate = tree, estimate
            if not best or not self._take(growing, best):
                return
            forced_text = b"" if growing.walk is None else growing.walk.forced_text()

    def _take(self, growing: Growing, tree: DraftTree) -> bool:
        """Append the first path of a tree, its other nodes become branches; False where it was not taken to its end."""
        path, chosen = 0, list[int]()
        for node, parent in enumerate(tree.parents):
            if parent == (chosen[-1] if chosen else -1):
                chosen.append(node)
        depth, root = len(growing.drafted), growing.tip
        for node in chosen:
            if not self.append(growing, tree.tokens[node], tree.probabilities[node], tree.sources[node]):
                break
            path += 1
        if len(chosen) < len(tree):
            growing.branches += side_branches(tree, chosen[:path], depth, root, growing)
        return path == len(chosen)

    def append(self, growing: Growing, token: int, belief: float, source: Source) -> bool:
        """Append a token to the main path, if it pays and is possible; False where the path ends."""
        generation, walk = growing.generation, growing.walk
        if not 0 <= token < self._vocab_size or ends(generation, token):
            return False
        if walk is not None and not walk.allows(token):
            return False
        reach = growing.reach * self.estimate(growing, source, belief)
        if self.is_probe:
            self.outlook.add(reach, is_masked=growing.is_masked)
        elif not self.outlook.take(reach, is_masked=growing.is_masked):
            if not growing.drafted and growing.memory.peek is None:
                growing.memory.peek = (source, token, belief)
            return False
        growing.append(token, belief, source, reach)
        return walk is None or growing.follow(walk, token)

    def lead(self, growing: Growing) -> None:
        """Lead the grammar along what is drafted already; what it does not allow is given up."""
        matcher = growing.generation.matcher
        if matcher is None:
            return
        walk = growing.walk = matcher.walk()
        growing.masks.append(walk.mask)
        drafted, builder, growing.builder = growing.drafted, growing.builder, DraftBuilder()
        growing.drafted, growing.tip, growing.reach, node = [], -1, 1.0, -1
        for token in drafted:
            node = builder.find(node, token) or 0
            if not walk.advance(token):
                break
            belief, source = builder.evidence(node)
            growing.append(token, belief, source, builder.reach(node))
            growing.masks.append(walk.mask)
            growing.builder.set_mask(growing.tip, walk.mask)

    def finish(self, growing: Growing) -> None:
        """Add the branches that pay, put the grammar back, and hand the draft to its request."""
        generation, walk = growing.generation, growing.walk
        if self._config.width > 1 and growing.walks_with_model:
            growing.branches += self._free_branch(growing)
        try:
            for branch in sorted(growing.branches, key=lambda each: -each.depth):
                self._add_branch(growing, branch)
        finally:
            if walk is not None:
                walk.close()
        if walk is not None and generation.matcher is not None:
            generation.matcher.note_walk(walk)
        draft = growing.builder.finish(growing.tip, growing.masks[0] if growing.masks else None)
        if draft.tree:
            request = generation.request
            generation.draft = draft
            request.tail = list(draft.tree.tokens)
            request.tail_parents = [] if draft.tree.is_chain else list(draft.tree.parents)

    def _free_branch(self, growing: Growing) -> list[Branch]:
        """What the free proposers say at the beginning, where the main path says something else (SpecInfer's merge)."""
        branches = list[Branch]()
        drafted, growing.drafted = growing.drafted, []
        for proposer in self._proposers:
            tree = proposer.propose(growing.situation(), growing.room)
            if not tree or not tree.is_chain:
                continue
            node, depth = -1, 0
            while depth < len(tree) and (found := growing.builder.find(node, tree.tokens[depth])) is not None:
                node, depth = found, depth + 1
            if depth < len(tree) and (depth == 0 or tree.tokens[:depth] == tuple(drafted[:depth])):
                branches.append(Branch(depth, node, tree.tokens[depth:], tree.probabilities[depth:], proposer.source))
        growing.drafted = drafted
        return branches

    def _add_branch(self, growing: Growing, branch: Branch) -> None:
        generation, walk, builder = growing.generation, growing.walk, growing.builder
        if branch.depth > len(growing.drafted):
            return  # the grammar did not allow what it follows
        if walk is not None:
            n_back = len(growing.masks) - 1 - branch.depth
            if n_back < 0:
                return  # where the grammar could not be led to
            if n_back:
                walk.back(n_back, growing.masks[branch.depth])
                del growing.masks[branch.depth + 1 :]
        parent, n_taken = branch.parent, 0
        reach = builder.reach(parent) * (1.0 - builder.taken_share(parent))
        for token, belief in zip(branch.tokens, branch.beliefs, strict=True):
            if builder.find(parent, token) is not None or len(builder) >= MAX_NODES or ends(generation, token):
                break
            if not 0 <= token < self._vocab_size or (walk is not None and not walk.allows(token)):
                break
            reach *= self.estimate(growing, branch.source, belief)
            if not self.outlook.take(reach, is_masked=growing.is_masked):
                break
            parent = builder.add(token, parent, belief, branch.source, reach)
            if walk is not None:
                if not walk.advance(token):
                    break
                n_taken += 1
                builder.set_mask(parent, walk.mask)
        if walk is not None and n_taken:
            walk.back(n_taken, growing.masks[branch.depth])
