"""A plan as arrays: where tokens lie, which positions they have, and what the nodes of draft trees see."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plan import Row, StepPlan
from engine.step_batch import StepBatch, tree_words

tails = st.lists(st.integers(0, 62), max_size=62).map(lambda picks: tuple(p % (i + 1) - 1 for i, p in enumerate(picks)))
"""The parents of trees, chains now and then."""


def ancestors(parents: tuple[int, ...], node: int) -> list[int]:
    """From the root's child to the node."""
    path = [node]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    return path


@given(start=st.integers(0, 20), n_known=st.integers(1, 5), parents=tails, block_size=st.sampled_from([1, 4, 16]))
def test_nodes_lie_side_by_side_and_their_positions_are_their_depths(
    start: int, n_known: int, parents: tuple[int, ...], block_size: int
) -> None:
    n = n_known + len(parents)
    table = tuple(range(7, 7 + -(-(start + n) // block_size)))
    row = Row("tree", start, tuple(range(n)), table, 1 + len(parents), parents=parents)
    plain = Row("plain", start, (1,) * n, tuple(page + 100 for page in table), 1)
    batch = StepBatch.from_plan(StepPlan(0, (plain, row)), block_size, 1, is_sorted=False)
    root = start + n_known - 1
    depths = [len(ancestors(parents, node)) for node in range(len(parents))]
    assert batch.positions[n:].tolist() == [*range(start, root + 1), *(root + depth for depth in depths)]
    assert batch.positions[:n].tolist() == list(range(start, start + n))
    assert batch.slots[0][n:].tolist() == [7 * block_size + start + i for i in range(n)]
    assert batch.ragged[0].context_lens == (start + n, start + n)
    assert batch.logits_from.tolist() == [n - 1, *range(2 * n - 1 - len(parents), 2 * n)]
    if not batch.ragged[0].trees:
        assert depths == list(range(1, 1 + len(parents)))
        return
    plain_words, words = batch.ragged[0].trees
    assert not plain_words
    assert words[0] == 1
    for node, word in enumerate(words[1:]):
        seen = {bit - 1 for bit in range(64) if word >> bit & 1}
        assert seen == {-1, *ancestors(parents, node)}


def test_a_step_of_chains_has_no_trees() -> None:
    rows = (
        Row("chain", 0, (1, 2, 3), (0,), 3),
        Row("said", 0, (1, 2, 3), (1,), 3, parents=(-1, 0)),
        Row("one", 5, (1,), (2,), 1),
    )
    assert StepBatch.from_plan(StepPlan(0, rows), 8, 1).ragged[0].trees == ()
    assert tree_words((-1, 0, 1)) == ()


@pytest.mark.parametrize(
    ("parents", "n_logits", "named"),
    [
        ((-1, 1), 3, "parent of node 1 is 1"),
        ((-2, 0), 3, "parent of node 0 is -2"),
        ((-1,), 3, "1 parents and a tail of 2"),
        ((-1, -1), 0, "2 parents and a tail of 0"),
        ((-1,) * 64, 65, "a tree of 64 nodes: use at most 63"),
    ],
)
def test_a_tree_that_is_none_is_refused_by_request(parents: tuple[int, ...], n_logits: int, named: str) -> None:
    row = Row("r1", 0, (1,) * max(3, n_logits), (0,), n_logits, parents=parents)
    with pytest.raises(ValueError, match=f"r1.*{named}"):
        StepBatch.from_plan(StepPlan(0, (row,)), 128, 1)
