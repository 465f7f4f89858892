"""Block tables: what a request finds in the prefix cache, and what it is told of what it does not find."""

import pytest

from engine.block_tables import BlockTables
from engine.blocks import BlockPool, root_key
from engine.request import CacheMiss, Request

SIZE = 4


def root(salt: str = "") -> bytes:
    return root_key(salt=salt, fingerprint="model", kv_format="float32")


def tables_of(n_blocks: int = 16, *, prefix_cache: bool = True) -> BlockTables:
    return BlockTables(BlockPool(n_blocks, SIZE, prefix_cache=prefix_cache))


def compute(tables: BlockTables, tokens: list[int], salt: str = "") -> Request:
    """A request that was placed, computed in full and offered to the cache."""
    request = Request("r", list(tokens), root_key=root(salt))
    assert tables.place(request, tables.find(request), reserve=0)
    request.computed = len(tokens)
    tables.register(request)
    return request


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
