"""The block pool by example, and the laws of its keys (any history: test_block_machine.py)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.blocks import BlockPool, NoFreeBlocks, root_key
from tests.engine.keys import keys_of


def test_leaves_are_evicted_before_their_roots_and_old_before_new() -> None:
    pool = BlockPool(6, 1)
    old, new = keys_of([1, 2, 3], 1), keys_of([4, 5, 6], 1)
    for keys in (old, new):
        blocks = pool.allocate(3)
        for block, key in zip(blocks, keys, strict=True):
            pool.register(block, key)
        pool.release(blocks)
    survivors = []
    for _ in range(6):
        pool.allocate(1)
        survivors.append((pool.lookup(old), pool.lookup(new)))
    assert survivors == [(2, 3), (1, 3), (0, 3), (0, 2), (0, 1), (0, 0)]


def test_a_hit_makes_a_prefix_young_again() -> None:
    pool = BlockPool(2, 1)
    first, second = keys_of([1], 1), keys_of([2], 1)
    for keys in (first, second):
        blocks = pool.allocate(1)
        pool.register(blocks[0], keys[0])
        pool.release(blocks)
    pool.release(pool.acquire(first))
    pool.allocate(1)
    assert (pool.lookup(first), pool.lookup(second)) == (1, 0)


def test_blank_blocks_are_used_before_a_cached_one_is_lost() -> None:
    pool = BlockPool(3, 1)
    keys = keys_of([7], 1)
    blocks = pool.allocate(1)
    pool.register(blocks[0], keys[0])
    pool.release(blocks)
    pool.allocate(2)
    assert pool.lookup(keys) == 1
    assert pool.evictions == 0


def test_equal_content_computed_twice_ends_in_one_block() -> None:
    pool = BlockPool(4, 2)
    key = keys_of([1, 2], 2)[0]
    mine, yours = pool.allocate(2)
    assert pool.register(mine, key) == mine
    assert pool.register(yours, key) == mine
    pool.check_integrity([[mine], [mine]])
    assert pool.n_free == 3


def test_too_large_an_allocation_takes_nothing() -> None:
    pool = BlockPool(2, 4)
    with pytest.raises(NoFreeBlocks, match="3 blocks asked for, 2 of 2 are free"):
        pool.allocate(3)
    assert pool.n_free == 2


def test_without_a_prefix_cache_nothing_is_remembered() -> None:
    pool = BlockPool(2, 1, prefix_cache=False)
    keys = keys_of([3], 1)
    blocks = pool.allocate(1)
    assert pool.register(blocks[0], keys[0]) == blocks[0]
    pool.release(blocks)
    assert pool.lookup(keys) == 0
    pool.check_integrity([])


@given(st.lists(st.integers(0, 5), min_size=4, max_size=12), st.lists(st.text(), min_size=8, max_size=8))
def test_tenants_models_formats_and_position_schemes_never_share_a_key(tokens: list[int], parts: list[str]) -> None:
    scopes = (tuple(parts[:4]), tuple(parts[4:]))
    roots = [
        root_key(salt=salt, fingerprint=model, kv_format=kv, position_scheme=scheme)
        for salt, model, kv, scheme in scopes
    ]
    mine, yours = (keys_of(tokens, 2, root) for root in roots)
    assert (mine == yours) == (scopes[0] == scopes[1])
    assert set(mine).isdisjoint(yours) or scopes[0] == scopes[1]


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
def test_keys_agree_exactly_as_far_as_the_tokens_do(left: list[int], right: list[int]) -> None:
    common = 0
    while common < min(len(left), len(right)) and left[common] == right[common]:
        common += 1
    pairs = list(zip(keys_of(left, 2), keys_of(right, 2), strict=False))
    assert [a == b for a, b in pairs] == [index < common // 2 for index in range(len(pairs))]


@pytest.mark.parametrize(("n_blocks", "block_size"), [(0, 4), (4, 0)])
def test_an_empty_pool_is_refused(n_blocks: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="use 1 or more of each"):
        BlockPool(n_blocks, block_size)
