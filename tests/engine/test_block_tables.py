"""Block tables: what a request finds in the prefix cache, and what it is told of what it does not find."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.block_tables import BlockTables
from engine.blocks import BlockPool, root_key
from engine.request import CacheMiss, Request

SIZE = 4


def root(salt: str = "") -> bytes:
    return root_key(salt=salt, fingerprint="model", kv_format="float32")


def tables_of(n_blocks: int = 16, *, prefix_cache: bool = True, splits_blocks: bool = True) -> BlockTables:
    return BlockTables(BlockPool(n_blocks, SIZE, prefix_cache=prefix_cache), max_chunk=64, splits_blocks=splits_blocks)


def compute(tables: BlockTables, tokens: list[int], salt: str = "") -> Request:
    """A request that was placed, computed in full and offered to the cache."""
    request = Request("r", list(tokens), root_key=root(salt))
    assert tables.place(request, tables.find(request), reserve=0)
    tables.take_copies()  # by the step that computes the rest
    request.computed = len(tokens)
    tables.advance(request)
    return request


def found(tables: BlockTables, tokens: list[int]) -> int:
    """How many tokens a new request of these tokens would not have to compute."""
    hit = tables.find(Request("r", list(tokens), root_key=root()))
    return hit.n_blocks * SIZE + hit.n_copied


def n_common(left: list[int], right: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def miss_of(tables: BlockTables, tokens: list[int], salt: str = "") -> CacheMiss:
    return tables.find(Request("r", list(tokens), root_key=root(salt))).miss


def test_the_first_prompt_of_a_tenant_is_cold_whatever_others_have_cached() -> None:
    tables = tables_of()
    assert miss_of(tables, [1] * 9) is CacheMiss.COLD
    compute(tables, [1] * 9)
    assert miss_of(tables, [1] * 9, salt="another") is CacheMiss.COLD


def test_a_prompt_that_leaves_the_known_path_has_diverged_from_the_first_block_on_or_later() -> None:
    tables = tables_of()
    compute(tables, [1] * 9)
    assert miss_of(tables, [2] * 9) is CacheMiss.DIVERGED
    assert miss_of(tables, [1] * 4 + [2] * 5) is CacheMiss.DIVERGED
    assert miss_of(tables, [1] * 8 + [2] * 5) is CacheMiss.DIVERGED


def test_a_prompt_of_which_only_the_last_token_is_computed_misses_nothing() -> None:
    tables = tables_of()
    compute(tables, [1] * 9)
    assert miss_of(tables, [1] * 9) is CacheMiss.NONE


def test_a_prompt_whose_blocks_had_to_make_room_is_told_so() -> None:
    tables = tables_of(n_blocks=5)
    tables.drop(compute(tables, [1] * 9))
    tables.drop(compute(tables, [2] * 17))
    assert miss_of(tables, [1] * 9) is CacheMiss.EVICTED
    assert miss_of(tables, [3] * 9) is CacheMiss.DIVERGED


def test_a_root_whose_blocks_are_all_gone_is_not_cold() -> None:
    tables = tables_of(n_blocks=5)
    tables.drop(compute(tables, [1] * 9, salt="tenant"))
    tables.drop(compute(tables, [2] * 20))
    assert miss_of(tables, [3] * 9, salt="tenant") is CacheMiss.DIVERGED


def test_the_memory_of_what_was_evicted_is_bounded() -> None:
    tables = tables_of(n_blocks=3)
    for i in range(100):
        tables.drop(compute(tables, [i] * 9))
    remembered = sum(miss_of(tables, [i] * 9) is CacheMiss.EVICTED for i in range(100))
    assert 1 <= remembered <= 4 * 3
    assert miss_of(tables, [0] * 9) is CacheMiss.DIVERGED


@pytest.mark.parametrize("tokens", [[1], [1] * 9])
def test_without_a_prefix_cache_the_reason_is_that(tokens: list[int]) -> None:
    tables = tables_of(prefix_cache=False)
    compute(tables, tokens)
    assert miss_of(tables, tokens) is CacheMiss.DISABLED


prompts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14), min_size=1, max_size=8)


@given(earlier=prompts, prompt=st.lists(st.integers(0, 1), min_size=1, max_size=14))
def test_a_prompt_finds_all_that_it_shares_with_any_earlier_one_to_the_token(
    earlier: list[list[int]], prompt: list[int]
) -> None:
    tables = tables_of(n_blocks=100)
    for tokens in earlier:
        tables.drop(compute(tables, tokens))
    longest = max(n_common(tokens, prompt) for tokens in earlier)
    assert found(tables, prompt) == min(longest, len(prompt) - 1)


@given(earlier=prompts, prompt=st.lists(st.integers(0, 1), min_size=1, max_size=14))
def test_where_blocks_hold_only_as_a_whole_a_prompt_finds_whole_ones(
    earlier: list[list[int]], prompt: list[int]
) -> None:
    tables = tables_of(n_blocks=100, splits_blocks=False)
    for tokens in earlier:
        tables.drop(compute(tables, tokens))
    ends = {n for tokens in earlier for n in (*range(0, len(tokens) + 1, SIZE), len(tokens))
            if n <= n_common(tokens, prompt) and n < len(prompt)}  # fmt: skip
    assert found(tables, prompt) == max(ends)


def test_a_block_that_is_shared_in_part_is_copied_before_the_next_step_and_once() -> None:
    tables = tables_of()
    first = compute(tables, [1] * 4 + [2] * 4)
    second = Request("s", [1] * 4 + [2] * 3 + [3] * 3, root_key=root())
    assert tables.place(second, tables.find(second), reserve=0)
    assert second.blocks[0] == first.blocks[0]
    assert second.blocks[1] not in first.blocks
    assert second.computed == 7
    assert tables.take_copies() == ((first.blocks[1], second.blocks[1]),)
    assert tables.take_copies() == ()


@pytest.mark.parametrize(("splits_blocks", "n_found"), [(True, 6), (False, 4)])
def test_a_block_that_a_step_in_flight_still_writes_is_offered_only_where_its_beginning_is_enough(
    splits_blocks: bool, n_found: int
) -> None:
    tables = tables_of(splits_blocks=splits_blocks)
    tables.drop(compute(tables, [1] * 6), in_flight=True)
    assert found(tables, [1] * 7) == n_found


def test_a_block_that_was_copied_outlives_one_that_was_not() -> None:
    tables = tables_of(n_blocks=3, splits_blocks=False)
    for tokens in ([1, 1], [2, 2]):
        tables.drop(compute(tables, tokens))
    tables.drop(compute(tables, [1, 1, 3]), in_flight=True)
    tables.pool.allocate(2)
    assert (found(tables, [1, 1, 3]), found(tables, [2, 2, 3])) == (2, 0)


def test_nothing_is_copied_for_a_request_that_left_before_its_step() -> None:
    tables = tables_of()
    compute(tables, [1] * 4 + [2] * 4)
    other = Request("s", [1] * 4 + [2] * 3 + [3] * 3, root_key=root())
    assert tables.place(other, tables.find(other), reserve=0)
    tables.drop(other)
    assert tables.take_copies() == ()
