"""The work list of attention: every query meets every key that it sees, once, in bounded work."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention_plan import MERGE_LANES, SPLIT_UNIT, Plan, Policy, TableRows, check_trees, plan_work, tree_fields
from kernels.batch import RaggedBatch
from kernels.reference import _positions_and_hidden

BLOCK_SIZE = 16


def policy(**changes: Any) -> Policy:
    return Policy(**{"block_q": 4, "n_kv_heads": 2, "window": None, "target": 16, "shortest": SPLIT_UNIT, **changes})


def batch_of(rows: list[tuple[int, int]], trees: tuple[tuple[int, ...], ...] = ()) -> RaggedBatch:
    tables = tuple(tuple(range(-(-context // BLOCK_SIZE))) for _, context in rows)
    return RaggedBatch(tuple(n for n, _ in rows), tuple(context for _, context in rows), tables, BLOCK_SIZE, trees)


def planned(batch: RaggedBatch, policy: Policy) -> Plan:
    plan = plan_work(batch, 1000, policy)
    assert plan is not None
    return plan


@st.composite
def rows_of_a_step(draw: st.DrawFn) -> list[tuple[int, int]]:
    before = draw(st.lists(st.integers(0, 3000), min_size=1, max_size=8))
    return [(n, n + start) for start in before for n in [draw(st.integers(1, 40))]]


@st.composite
def trees(draw: st.DrawFn, most: int = 12) -> tuple[int, ...]:
    """The words of a random draft tree."""
    words: list[int] = []
    for node in range(draw(st.integers(0, most))):
        parent = draw(st.integers(-1, node - 1))
        words.append((words[parent] if parent >= 0 and node else 0) | 1 << node)
    return tuple(words)


@given(
    rows=rows_of_a_step(),
    window=st.none() | st.integers(1, 500),
    block_q=st.sampled_from([1, 4, 32]),
    split=st.none() | st.sampled_from([SPLIT_UNIT, 512]),
    most_partials=st.none() | st.integers(1, 40),
)
@settings(deadline=None, max_examples=60)
def test_every_query_meets_every_key_that_it_sees_once(
    rows: list[tuple[int, int]], window: int | None, block_q: int, split: int | None, most_partials: int | None
) -> None:
    batch = batch_of(rows)
    plan = planned(
        batch,
        policy(window=window, block_q=block_q, split_keys=split, most_partials=most_partials, may_relaunch=True),
    )
    firsts = np.cumsum([0, *batch.query_lens])
    met = [np.zeros((n, context), dtype=int) for n, context in rows]
    for table, first, n, slot, begin, end, _, tree_start in plan.items.tolist():
        row = table // 1000
        assert tree_start == rows[row][1]
        assert slot - (first - firsts[row]) == rows[row][1] - rows[row][0]
        assert 0 < n <= block_q
        assert begin % plan.split_keys == 0
        assert end > begin
        met[row][first - firsts[row] : first - firsts[row] + n, begin:end] += 1
    for (n, context), times in zip(rows, met, strict=True):
        position = np.arange(context - n, context)[:, None]
        key = np.arange(context)
        is_seen = (key <= position) & (key > position - (window or context))
        assert (times[is_seen] == 1).all()
        assert (times <= 1).all()


@given(rows=rows_of_a_step(), most=st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_merges_take_every_partial_result_of_their_launch_once(rows: list[tuple[int, int]], most: int) -> None:
    plan = planned(batch_of(rows), policy(split_keys=256, most_partials=most, may_relaunch=True))
    n_items = n_merges = 0
    for launch in plan.launches:
        items, merges = plan.items[launch.items], plan.merges[launch.merges]
        n_items, n_merges = n_items + len(items), n_merges + len(merges)
        written = items[items[:, 6] >= 0]
        writer = dict(zip(written[:, 6].tolist(), written.tolist(), strict=True))
        assert sorted(writer) == list(range(len(written)))
        assert len(written) <= max(plan.n_partials, most)
        taken: list[int] = []
        for first_token, n, first, count, lane in merges[:, :5].tolist():
            parts = [writer[first + i] for i in range(count)]
            assert all(part[1:3] == [first_token, n] for part in parts)
            assert [part[4] for part in parts] == [part[4] + 256 * i for i, part in enumerate(parts[:1] * count)]
            assert lane == parts[0][4] // 256 % MERGE_LANES
            taken += range(first, first + count)
        assert sorted(taken) == sorted(writer)
        # Nothing else writes to what is merged.
        merged = {entry[0] for entry in merges.tolist()}
        assert all(item[1] not in merged for item in items.tolist() if item[6] < 0)
    assert (n_items, n_merges) == (len(plan.items), len(plan.merges))
    assert plan.n_partials <= max(most, -(-3040 // 256))


def test_long_rows_are_cut_so_that_they_fill_the_device_and_short_ones_are_not() -> None:
    alone = planned(batch_of([(1, 100_000)]), policy(n_kv_heads=8, target=1056))
    assert 0.95 * 1056 <= len(alone.items) * 8 <= 1.1 * 1056
    assert len(alone.merges) == 1
    crowd = planned(batch_of([(1, 4000)] * 256), policy(n_kv_heads=8, target=1056))
    assert len(crowd.items) == 256
    assert len(crowd.merges) == 0
    # Beside short rows, a long one does not take as long as all of them together.
    mixed = planned(batch_of([(1, 500)] * 255 + [(1, 100_000)]), policy(n_kv_heads=8, target=1056))
    assert len(mixed.merges) == 1
    assert mixed.split_keys < 3000
    # Two equal halves rather than one range and a little more.
    assert planned(batch_of([(1, 1100)]), policy(target=4, shortest=1000)).split_keys == 640


@given(rows=rows_of_a_step(), spare=st.integers(0, 4), window=st.none() | st.integers(1, 500))
@settings(deadline=None, max_examples=60)
def test_a_bounded_list_is_cut_less_rather_than_refused(
    rows: list[tuple[int, int]], spare: int, window: int | None
) -> None:
    n_blocks = sum(-(-n // 4) for n, _ in rows)
    assert len(planned(batch_of(rows), policy(target=10_000, most_items=n_blocks + spare, window=window)).items) <= (
        n_blocks + spare
    )


def test_ranges_of_a_set_length_that_do_not_fit_are_refused() -> None:
    assert plan_work(batch_of([(1, 1000)]), 1000, policy(split_keys=128, most_items=7)) is None
    assert plan_work(batch_of([(1, 1000)]), 1000, policy(split_keys=128, most_items=8)) is not None
    assert plan_work(batch_of([(1, 1000)]), 1000, policy(split_keys=128, most_partials=7)) is None


def test_the_longest_items_come_first() -> None:
    plan = planned(batch_of([(1, 100), (40, 600), (1, 900)]), policy(split_keys=4096))
    n_keys = (plan.items[:, 5] - plan.items[:, 4]).tolist()
    assert n_keys == sorted(n_keys, reverse=True)


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_tables_of_batch_after_batch_are_those_of_its_rows(data: st.DataObject) -> None:
    kept = TableRows(6, 8)
    tables: list[tuple[int, ...]] = []
    for _ in range(data.draw(st.integers(1, 5))):
        tables = [table for table in tables if data.draw(st.booleans())]
        while len(tables) < data.draw(st.integers(1, 6)):
            tables.append(tuple(data.draw(st.lists(st.integers(-1, 9), min_size=1, max_size=8))))
        tables = data.draw(st.permutations(tables)) or [(1,)]
        contexts = tuple(data.draw(st.integers(1, 4 * len(table))) for table in tables)
        batch = RaggedBatch((1,) * len(tables), contexts, tuple(tables), 4)
        found = kept.update(batch)
        assert found.shape == (len(tables), max(map(batch.n_pages, range(len(tables)))))
        for row, table in enumerate(tables):
            assert found[row, : batch.n_pages(row)].tolist() == list(table[: batch.n_pages(row)])


def test_a_table_without_room_for_its_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 9 keys and a block table of 2 pages: 4 keys a page take 3"):
        TableRows(2, 3).update(RaggedBatch((1, 1), (4, 9), ((0,), (1, 2)), 4))


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_positions_and_words_are_those_of_the_definition(data: st.DataObject) -> None:
    drafts = tuple(data.draw(st.lists(trees(), min_size=1, max_size=4)))
    rows = []
    for tree in drafts:
        n = data.draw(st.integers(max(1, len(tree)), len(tree) + 3))
        rows.append((n, n + data.draw(st.integers(0, 9))))
    positions, words = tree_fields(batch_of(rows, drafts))
    first = 0
    for (n, context), tree in zip(rows, drafts, strict=True):
        expected, _ = _positions_and_hidden(n, context, tree, torch.device("cpu"))
        assert positions[first : first + n].tolist() == expected[context - n :].tolist()
        assert words[first : first + n].tolist() == [0] * (n - len(tree)) + list(tree)
        first += n


def test_a_word_may_use_all_64_bits() -> None:
    chain = tuple((1 << node + 1) - 1 for node in range(64))
    positions, words = tree_fields(batch_of([(64, 70)], (chain,)))
    assert positions.tolist() == list(range(6, 70))
    assert words[-1] == -1


@pytest.mark.parametrize(
    ("drafts", "message"),
    [
        (((1,), ()), "2 draft trees and 1 rows"),
        (((1,) * 65,), "65 nodes: at most 64"),
        (((1, 3, 7),), "3 nodes and 2 queries"),
    ],
)
def test_trees_that_no_step_can_have_are_refused(drafts: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_trees(batch_of([(2, 5)], drafts))
