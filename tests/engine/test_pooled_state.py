"""Sums by page: a prompt's pooled state is the same bits however it is cut, and wherever its beginning came from."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.plan import Row
from engine.pooled_state import PooledStates
from kernels import kernels_for

CPU, BLOCK_SIZE, LAYERS, HIDDEN = torch.device("cpu"), 4, 2, 3


def pooled_states() -> PooledStates:
    return PooledStates(32, BLOCK_SIZE, LAYERS, HIDDEN, CPU, kernels_for(CPU))


def row(start: int, n: int, table: tuple[int, ...]) -> Row:
    return Row("a", start, (0,) * n, table, 0)


def states_of(n: int) -> torch.Tensor:
    return torch.randn(n, LAYERS, HIDDEN, generator=torch.Generator().manual_seed(1)) * 100


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
