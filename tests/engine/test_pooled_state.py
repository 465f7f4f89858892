"""Sums by page: a prompt's pooled state is the same bits however it is cut, and wherever its beginning came from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.kv_groups import NULL_BLOCK, KVGroup
from engine.plan import Row
from engine.pooled_state import PooledStates
from kernels import kernels_for

CPU, BLOCK_SIZE, LAYERS, HIDDEN = torch.device("cpu"), 4, 2, 3


def pooled_states(window: int | None = None) -> PooledStates:
    return PooledStates(32, BLOCK_SIZE, LAYERS, HIDDEN, CPU, kernels_for(CPU), KVGroup(window, (0,)))


def row(
    start: int,
    n: int,
    table: tuple[int, ...],
    n_tail: int = 0,
    *,
    name: str = "a",
    is_draft: bool = False,
    turn_start: int = 0,
) -> Row:
    return Row(name, start, (0,) * n, table, 1 + n_tail if n_tail else 0, is_draft=is_draft, turn_start=turn_start)


def states_of(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, LAYERS, HIDDEN, generator=torch.Generator().manual_seed(seed)) * 100


@given(st.lists(st.integers(1, 11), min_size=1, max_size=5), st.integers(1, 9))
def test_the_state_of_a_prompt_is_the_same_bits_however_it_is_cut(cuts: list[int], n_other: int) -> None:
    length = sum(cuts)
    states, table, others = states_of(length), tuple(range(16, 0, -1)), states_of(n_other)
    whole, parts = pooled_states(), pooled_states()
    whole.add([row(0, length, table)], states)
    start = 0
    for n in cuts:  # each chunk with company before it in the flat batch
        company = row(0, n_other, (20, 21, 22))
        parts.add([company, row(start, n, table)], torch.cat([others, states[start : start + n]]))
        start += n
    last = row(0, length, table)
    found, expected = parts.pool(last, states[-1]), whole.pool(last, states[-1])
    assert torch.equal(found, expected)
    torch.testing.assert_close(found, torch.stack((states[-1], states.mean(0)), 1), atol=1e-3, rtol=1e-4)


WINDOWS = st.sampled_from([None, 1, 2, 3, 9, 20])


@given(cuts=st.lists(st.integers(1, 11), min_size=1, max_size=5), window=WINDOWS, data=st.data())
def test_the_mean_over_the_last_turn_is_the_same_bits_however_the_prompt_is_cut(
    cuts: list[int], window: int | None, data: st.DataObject
) -> None:
    """Pages behind the window of the row at hand are gone when the state is read, as they are in the engine."""
    length = sum(cuts)
    turn_start = data.draw(st.integers(0, length - 1), label="turn_start")
    states, table = states_of(length), tuple(range(16, 0, -1))
    whole, parts = pooled_states(window), pooled_states(window)
    end = row(0, length, table, turn_start=turn_start)
    whole.add([end], states)
    group, start = KVGroup(window, (0,)), 0
    for n in cuts:
        n_gone = group.first_kept(start) // BLOCK_SIZE
        kept = (*[NULL_BLOCK] * n_gone, *table[n_gone:])
        chunk = row(start, n, kept, turn_start=turn_start)
        parts.add([chunk], states[start : start + n])
        start += n
    found, first = parts.pool(chunk, states[-1]), parts.pooled_from(turn_start, length)
    assert torch.equal(found, whole.pool(end, states[-1]))
    torch.testing.assert_close(found[:, 1], states[first:].mean(0), atol=1e-3, rtol=1e-4)


@given(turn_start=st.integers(0, 200), rest=st.integers(1, 50), window=WINDOWS)
def test_the_mean_begins_with_the_page_of_the_turn_or_with_the_oldest_that_a_window_keeps(
    turn_start: int, rest: int, window: int | None
) -> None:
    length = turn_start + rest
    first = pooled_states(window).pooled_from(turn_start, length)
    assert first % BLOCK_SIZE == 0
    if window is None or turn_start < BLOCK_SIZE:
        assert first <= turn_start < first + BLOCK_SIZE
    else:
        assert turn_start // BLOCK_SIZE * BLOCK_SIZE <= first <= length - 1
        assert first <= max(turn_start, length - window), "no page is left out that the last token sees"


@given(n_known=st.integers(1, 3), n_more=st.integers(1, 9), data=st.data())
def test_the_copy_of_a_page_gives_the_turn_that_begins_in_it_the_bits_of_its_source(
    n_known: int, n_more: int, data: st.DataObject
) -> None:
    """A prompt whose third page begins as one in the cache does, and goes on otherwise."""
    shared = 2 * BLOCK_SIZE + n_known
    length = shared + n_more
    turn_start = data.draw(st.integers(0, length - 1), label="turn_start")
    states, copied, alone = states_of(length), pooled_states(), pooled_states()
    copied.add([row(0, shared, (0, 1, 2))], states[:shared])
    copied.copy_pages([2], [9])
    copied.add([row(shared, n_more, (0, 1, 9, 10, 11, 12))], states[shared:])
    alone.add([row(0, length, tuple(range(20, 26)))], states)
    forked = row(shared, n_more, (0, 1, 9, 10, 11, 12), turn_start=turn_start)
    expected = alone.pool(row(0, length, tuple(range(20, 26)), turn_start=turn_start), states[-1])
    assert torch.equal(copied.pool(forked, states[-1]), expected)


def test_a_short_turn_after_a_long_prompt_is_no_noise() -> None:
    """States of real models have values in the thousands that hardly differ: their sum over a long prompt swallows
    what a turn adds to it."""
    states, pooled, table = states_of(124), pooled_states(), tuple(range(31))
    states[:120] *= 1e6
    pooled.add([row(0, 124, table)], states)
    found = pooled.pool(row(0, 124, table, turn_start=121), states[-1])
    torch.testing.assert_close(found[:, 1], states[120:].mean(0), atol=1e-4, rtol=1e-5)


@given(st.integers(1, 3), st.integers(1, 9), st.booleans())
def test_a_row_goes_on_from_pages_that_another_row_of_the_step_computes(
    n_shared: int, n_own: int, comes_first: bool
) -> None:
    start = n_shared * BLOCK_SIZE
    states, shared = states_of(start + n_own), tuple(range(n_shared))
    rows = [(row(0, start, shared), states[:start]), (row(start, n_own, (*shared, 10, 11, 12)), states[start:])]
    if comes_first:
        rows.reverse()
    pooled = pooled_states()
    pooled.add([each for each, _ in rows], torch.cat([of_row for _, of_row in rows]))
    alone = pooled_states()
    alone.add([row(0, start + n_own, (*shared, 10, 11, 12))], states)
    last = row(start, n_own, (*shared, 10, 11, 12))
    assert torch.equal(pooled.pool(last, states[-1]), alone.pool(last, states[-1]))


@given(
    prompt=st.integers(1, 9),
    steps=st.lists(st.tuples(st.integers(1, 3), st.sets(st.integers(0, 8)), st.booleans()), min_size=1, max_size=4),
    has_company=st.booleans(),
)
def test_sums_are_the_bits_of_a_request_never_drafted_for(
    prompt: int, steps: list[tuple[int, set[int], bool]], has_company: bool
) -> None:
    """steps: known tokens, which nodes of a tail of 9 are accepted, and whether what is known of them is settled in a
    step with others."""
    table, length = tuple(range(30)), prompt
    drafted, plain = pooled_states(), pooled_states()
    drafted.add([row(0, prompt, table)], states_of(prompt))
    history = [states_of(prompt)]
    for n_known, accepted, is_first in steps:
        states = states_of(n_known + 9, seed=length)
        mine, other = row(length, n_known + 9, table, 9), row(0, 4, (30, 31), 2, name="other")
        draft = row(3, 5, (31, 30), 3, name="guess", is_draft=True)
        nodes = tuple(sorted(accepted))
        if has_company:
            order = [(mine, states), (other, states_of(4)), (draft, states_of(5))]
            order = order if is_first else order[::-1]
            drafted.add([each for each, _ in order], torch.cat([of_row for _, of_row in order]))
            drafted.settle([(draft, (0, 1)), (other, (0,)), (mine, nodes)])
        else:
            drafted.add([mine], states)
            drafted.settle([(mine, nodes)])
        history += [states[:n_known], states[[n_known + node for node in nodes]]]
        length += n_known + len(nodes)
    last = states_of(1)
    drafted.add([row(length, 1, table)], last)
    whole = torch.cat([*history, last])
    plain.add([row(0, length + 1, table)], whole)
    for turn_start in range(0, length + 1, 3):
        end = row(length, 1, table, turn_start=turn_start)
        assert torch.equal(drafted.pool(end, last[0]), plain.pool(end, last[0]))


def test_a_prompt_ends_before_its_tail() -> None:
    states, pooled, table = states_of(9), pooled_states(), (0, 1, 2)
    pooled.add([row(0, 9, table, 4)], states)
    found = pooled.pool(row(0, 9, table, 4), states[4])
    torch.testing.assert_close(found, torch.stack((states[4], states[:5].mean(0)), 1))
    turn = pooled.pool(row(0, 9, table, 4, turn_start=4), states[4])
    torch.testing.assert_close(turn[:, 1], states[4])


def test_what_is_not_settled_before_the_next_step_is_dropped() -> None:
    states, pooled = states_of(9), pooled_states()
    drafted = row(0, 9, (0, 1, 2), 4)
    pooled.add([drafted], states)
    pooled.add([row(5, 1, (0, 1, 2))], states[5:6])
    with pytest.raises(ValueError, match="request a: the last step left no tail"):
        pooled.settle([(drafted, (0,))])
