"""How much of a prompt a step takes in beside running answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chunk_limit import ChunkLimit, Shape
from tests.engine.costs import STEP_S, TOKEN_S, linear_cost_model

MODEL = linear_cost_model()


@given(
    n_streams=st.integers(1, 30),
    slowdown=st.floats(1.01, 6.0),
    start=st.integers(0, 500),
    n=st.integers(1, 600),
    min_chunk=st.integers(1, 20),
    max_s=st.none() | st.floats(0.001, 0.3),
)
def test_a_chunk_is_the_longest_that_keeps_the_step_within_its_limit(
    n_streams: int, slowdown: float, start: int, n: int, min_chunk: int, max_s: float | None
) -> None:
    streams = [Shape(50 + i, 1, 1) for i in range(n_streams)]
    limit = ChunkLimit(MODEL, streams, max_slowdown=slowdown, max_s=max_s, min_chunk=min_chunk)
    taken = limit.take(start, n)
    limit_s = min(slowdown * MODEL.seconds(MODEL.step(streams)), max_s or 1e9)

    def fits(tokens: int) -> bool:
        return MODEL.seconds(MODEL.step([*streams, Shape(start, tokens, 0)])) <= limit_s

    longest = max((tokens for tokens in range(1, n + 1) if fits(tokens)), default=0)
    assert taken == max(longest, min(n, min_chunk))
    assert limit.is_spent == (taken < n)


def test_the_machine_of_the_tests_takes_what_it_says() -> None:
    for rows in ([Shape(60, 1, 1)] * 3, [Shape(0, 200, 0)], [Shape(9, 1, 1), Shape(40, 30, 0)]):
        expected = STEP_S + TOKEN_S * sum(row.n for row in rows)
        assert MODEL.seconds(MODEL.step(rows)) == pytest.approx(expected, rel=0.02)


def test_prompts_share_one_allowance_and_each_advances() -> None:
    limit = ChunkLimit(
        MODEL, [Shape(50, 1, 1)] * 10, max_slowdown=2.0, max_s=None, min_chunk=4
    )  # 20 ms more, so 20 tokens
    assert limit.take(0, 12) == 12
    assert not limit.is_spent
    assert limit.take(0, 100) == pytest.approx(8, abs=1)
    assert limit.is_spent
    assert limit.take(0, 100) == 1
    assert limit.take(0, 0) == 0
