"""A draft while it grows: its nodes, how likely each is to be reached, and the order in which a step computes them."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.speculation.proposer import DraftTree, Source

__all__ = ["Draft", "DraftBuilder"]


@dataclass(frozen=True, slots=True)
class Draft:
    """What goes into a step for one request.

    masks: int32 [1 + n, n_words], what may come first and after each node, where that was found while drafting; or
    None.
    """

    tree: DraftTree
    masks: np.ndarray | None = None


@dataclass(slots=True)
class _Node:
    token: int
    parent: int
    belief: float
    source: Source
    reach: float
    """How likely it is to be accepted with all that is before it."""
    mask: np.ndarray | None = None
    distribution: torch.Tensor | None = None


class DraftBuilder:
    """Collects the nodes of one request's draft. Nodes of one parent with the same token are one (SpecInfer; Miao et
    al., 2023)."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._at: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, parent: int, token: int) -> int | None:
        """The node of a token after `parent`, if there is one."""
        return self._at.get((parent, token))

    def add(
        self,
        token: int,
        parent: int,
        belief: float,
        source: Source,
        reach: float,
        *,
        mask: np.ndarray | None = None,
        distribution: torch.Tensor | None = None,
    ) -> int:
        """Append a node and return its number. mask: what may come after it; distribution: float32 [vocab] that it was
        drawn from. Raises ValueError for one that is there already."""
        if (parent, token) in self._at:
            raise ValueError(f"token {token} after node {parent} is drafted already")
        node = len(self._nodes)
        self._at[parent, token] = node
        self._nodes.append(_Node(token, parent, belief, source, reach, mask, distribution))
        return node

    def set_mask(self, node: int, mask: np.ndarray) -> None:
        """Note what may come after a node."""
        self._nodes[node].mask = mask

    def reach(self, node: int) -> float:
        """How likely a node is to be accepted; 1 for -1, the last committed token."""
        return 1.0 if node < 0 else self._nodes[node].reach

    def evidence(self, node: int) -> tuple[float, Source]:
        """Who proposed a node, and how sure that was."""
        return self._nodes[node].belief, self._nodes[node].source

    def taken_share(self, parent: int) -> float:
        """How likely it is, where `parent` is accepted, that one of its children is."""
        reach = self.reach(parent)
        return min(1.0, sum(node.reach for node in self._nodes if node.parent == parent) / reach) if reach else 1.0

    def finish(self, tip: int, root_mask: np.ndarray | None) -> Draft:
        """The draft, with the path to the node `tip` first: that one is laid out like a chain, and what a full step has
        no room for is cut from the end. root_mask: what may come before all of it; None where masks are unknown."""
        nodes, order = self._nodes, list[int]()
        while tip >= 0:
            order.append(tip)
            tip = nodes[tip].parent
        order.reverse()
        is_main = set(order)
        order += [node for node in range(len(nodes)) if node not in is_main]
        place = {node: at for at, node in enumerate(order)} | {-1: -1}
        ordered = [nodes[node] for node in order]
        distributions = [node.distribution for node in ordered if node.distribution is not None]
        rows = iter(range(len(distributions)))
        tree = DraftTree(
            tuple(node.token for node in ordered),
            tuple(place[node.parent] for node in ordered),
            tuple(node.belief for node in ordered),
            tuple(node.source for node in ordered),
            torch.stack(distributions) if distributions else None,
            tuple(-1 if node.distribution is None else next(rows) for node in ordered) if distributions else (),
        )
        masks = [node.mask for node in ordered if node.mask is not None]
        if root_mask is None or len(masks) < len(ordered):
            return Draft(tree)
        return Draft(tree, np.stack([root_mask, *masks]))
