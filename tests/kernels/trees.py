"""Draft trees over a vocabulary of 8 tokens, as the kernels of `verify` take them."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

VOCAB = 8
MAX_NODES = 8

chains = st.integers(0, MAX_NODES).map(lambda n: tuple(range(-1, n - 1)))
bushes = st.lists(st.integers(0, MAX_NODES), max_size=MAX_NODES - 1).map(
    lambda picks: (-1, *(pick % (i + 1) for i, pick in enumerate(picks)))
)
forests = st.lists(chains | bushes, min_size=1, max_size=4)
"""By row the parents of its nodes; a row may have none."""

trees = st.lists(st.integers(0, 62), max_size=63).map(
    lambda picks: (-1, *(max(0, i - pick // 4) for i, pick in enumerate(picks)))
)
"""The parents of up to 64 nodes, the root's first: some long branches, many short ones."""


@dataclass(frozen=True)
class Drafts:
    """Rows of trees, with what accept_coupled and accept_ratio need. Every second node was chosen with certainty."""

    tokens: torch.Tensor
    parents: torch.Tensor
    starts: torch.Tensor
    sampled: torch.Tensor
    target: torch.Tensor
    draft: torch.Tensor
    draft_of: torch.Tensor
    keys: torch.Tensor

    @classmethod
    def build(cls, forest: list[tuple[int, ...]], seed: int, sharpness: float = 3.0) -> "Drafts":
        """sharpness: of the distributions; at 0 they are all uniform, drafts and targets alike."""
        generator = torch.Generator().manual_seed(seed)
        n = sum(map(len, forest))
        starts = torch.tensor([0, *torch.tensor([len(parents) for parents in forest]).cumsum(0).tolist()])
        draft_of = torch.randperm(n, generator=generator).int()
        draft_of[1::2] = -1

        def random_tokens() -> torch.Tensor:
            return torch.randint(0, 3, (n,), generator=generator)  # few, so that drafts are often right

        def distributions() -> torch.Tensor:
            return (torch.randn(n, VOCAB, generator=generator) * sharpness).softmax(-1)

        return cls(
            random_tokens(),
            torch.tensor([parent for parents in forest for parent in parents], dtype=torch.int32),
            starts,
            random_tokens(),
            distributions(),
            distributions(),
            draft_of,
            torch.randint(-(2**63), 2**63 - 1, (n,), generator=generator),
        )

    @property
    def for_coupled(self) -> tuple[torch.Tensor, ...]:
        """Arguments of accept_coupled before max_nodes."""
        return self.tokens, self.parents, self.sampled, self.starts

    @property
    def for_ratio(self) -> tuple[torch.Tensor, ...]:
        """Arguments of accept_ratio before max_nodes; the target is a copy."""
        return (
            self.tokens, self.parents, self.target.clone(), self.draft, self.draft_of, self.keys, self.starts
        )  # fmt: skip


def depths(parents: tuple[int, ...]) -> list[int]:
    """Of every node, the root's is 0."""
    found: list[int] = []
    for parent in parents:
        found.append(0 if parent < 0 else found[parent] + 1)
    return found


def words_of(parents: tuple[int, ...]) -> tuple[int, ...]:
    """Of every node, as in a RaggedBatch; the root's parent is -1."""
    found: list[int] = []
    for node, parent in enumerate(parents):
        found.append((found[parent] if parent >= 0 else 0) | 1 << node)
    return tuple(found)


def path_to(parents: tuple[int, ...], node: int) -> list[int]:
    """From the root to the node."""
    path = [node]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    return path


def rows_with_trees(most_before: int) -> st.SearchStrategy[list[tuple[int, int, tuple[int, ...]]]]:
    """Rows of a batch: tokens computed before, tokens of the row before its tree, and the parents of the tree's nodes,
    the root's first; none for a chain."""
    rows = st.tuples(st.integers(0, most_before), st.integers(0, 5), st.just(()) | bushes)
    return st.lists(rows.map(lambda row: row if row[2] else (row[0], row[1] + 1, ())), min_size=1, max_size=5)
