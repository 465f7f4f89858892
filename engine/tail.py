"""The tail of a request as the tree that a step verifies: where a token is drawn, under which masks, and what each node
means for the draws behind it.

    tail      7  8  9  4        the           nodes    0   2   3        drawn after, in this order
    parents  -1  0 -1  2     `- 7 -- 8        draws    0   1   2  3     of the root and of each of them
                             `- 9 -- 4        8 is illegal: the draw after it is never reached, so it is not made
"""

from collections.abc import Iterator, Sequence

import numpy as np

from engine.generation import Generation
from engine.guarded_matcher import children_of
from engine.sampling_row import SampledToken, SamplingRow
from engine.speculation.draft import Draft
from engine.trial_walk import allows

__all__ = ["Tail", "Taken"]

Taken = tuple[SampledToken, int | None, bool]
"""A token of the answer, the node that had guessed it, and whether a draw was made after that one."""


class Tail:
    """What can be verified of the tail that a request has now. Any numbers may be drafted: a token that the grammar or
    the vocabulary does not have, and whatever follows it, is left out.

    tokens, parents, children: by node; -1 is the last committed token, the root. nodes: those with a draw after them,
    ascending: the draw after the root is number 0, that after nodes[i] is number 1 + i. masks: by draw.
    """

    def __init__(self, generation: Generation, vocab_size: int) -> None:
        """vocab_size: width of the logits. Raises GrammarFault."""
        request = generation.request
        self.tokens, n = tuple(request.tail), len(request.tail)
        self.parents = tuple(request.tail_parents[:n]) or tuple(range(-1, n - 1))
        self.children = children_of(self.parents)
        self.draft = _draft_of(generation, self.tokens, self.parents)
        masks, is_legal = self._masks(generation)
        self.nodes: list[int] = []
        self.masks = [None if masks is None else masks[0]]
        draw_of = self._draw_of = {-1: 0}
        for node, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            if is_legal[node] and 0 <= token < vocab_size and -1 <= parent < node and parent in draw_of:
                self.nodes.append(node)
                draw_of[node] = len(self.nodes)
                self.masks.append(None if masks is None else masks[1 + node])

    def draw_after(self, node: int) -> int | None:
        """The number of the draw after a node, or the root; None where there is none."""
        return self._draw_of.get(node)

    def rows(self, generation: Generation) -> list[SamplingRow]:
        """What decides the draws, in their order."""
        paths: dict[int, list[int]] = {-1: []}
        for node in self.nodes:
            paths[node] = [*paths[self.parents[node]], self.tokens[node]]
        return [generation.sampling_row(path, mask) for path, mask in zip(paths.values(), self.masks, strict=True)]

    def follow(self, drawn: Sequence[SampledToken]) -> Iterator[Taken]:
        """From the root to the node whose token was drawn, and on from there; the last token is the first that no node
        had guessed, or that nothing was drawn after. drawn: by draw."""
        tokens, node, draw = self.tokens, -1, 0
        while True:
            sampled, taken = drawn[draw], None
            for child in self.children.get(node, ()):
                if tokens[child] == sampled.token_id:
                    taken = child
                    break
            after = None if taken is None else self._draw_of.get(taken)
            yield sampled, taken, after is not None
            if taken is None or after is None:
                return
            node, draw = taken, after

    def may_come(self, node: int) -> bool:
        """Whether the mask before a node holds its token, where there is a draw after its parent."""
        mask = self.masks[self._draw_of[self.parents[node]]]
        return mask is None or allows(mask, self.tokens[node])

    def _masks(self, generation: Generation) -> tuple[np.ndarray | None, Sequence[bool]]:
        """The masks after the root and each node, of which those after illegal ones may be missing; which are legal."""
        matcher, draft, n = generation.matcher, self.draft, len(self.tokens)
        if matcher is None:
            return None, [True] * n
        if draft is not None and draft.masks is not None and len(draft.masks) > n:
            return draft.masks, matcher.legal_nodes(self.tokens, self.parents, draft.masks)
        if self.parents == tuple(range(-1, n - 1)):
            masks = matcher.masks_along(self.tokens)
            return masks, [node < len(masks) - 1 for node in range(n)]
        return matcher.masks_of_tree(self.tokens, self.parents)


def _draft_of(generation: Generation, tokens: tuple[int, ...], parents: tuple[int, ...]) -> Draft | None:
    """What the tail was made from, of which it may be the beginning."""
    draft, n = generation.draft, len(tokens)
    is_same = draft is not None and draft.tree.tokens[:n] == tokens and draft.tree.parents[:n] == parents
    return draft if is_same else None
