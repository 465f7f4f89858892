"""The block pool against a model that recounts everything: accounting, keys, LRU order and holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.blocks import BlockPool, NoFreeBlocks, extend_keys, root_key

ROOT = root_key(salt="", fingerprint="model", kv_format="float32")


def keys_of(tokens: list[int], block_size: int, root: bytes = ROOT) -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, root, tokens, len(tokens) // block_size, block_size)
    return keys


class PoolMachine(RuleBasedStateMachine):
    """Requests come with prompts from a tiny alphabet, so that prefixes are often shared, and leave at any point."""

    @initialize(n_blocks=st.integers(2, 12), block_size=st.integers(1, 3))
    def start(self, n_blocks: int, block_size: int) -> None:
        self.pool = BlockPool(n_blocks, block_size)
        self.tables: dict[int, list[int]] = {}
        self.contents: dict[
            int, tuple[int, ...]
        ] = {}  # block -> the tokens from position 0 to its end, once registered
        self.freed_during: dict[int, int] = {}
        self.steps: list[int] = []
        self.ids = 0

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=12))
    def admit(self, tokens: list[int]) -> None:
        size = self.pool.block_size
        keys = keys_of(tokens, size)
        n_hits = self.pool.lookup(keys)
        needed = self.pool.blocks_for(len(tokens)) - n_hits
        if needed > self.pool.n_free - self.pool.n_idle(keys[:n_hits]):
            return
        hits = self.pool.acquire(keys[:n_hits])
        for index, block in enumerate(hits):
            assert self.contents[block] == tuple(tokens[: (index + 1) * size]), "a hit holds other tokens than it says"
        fresh = self.pool.allocate(needed)
        assert not any(block in table for table in self.tables.values() for block in fresh), (
            "a writable block is shared"
        )
        assert not self.freed_during.keys() & set(fresh), "a block of an unfinished step was handed out again"
        blocks = hits + fresh
        for index in range(n_hits, len(keys)):
            block = self.pool.register(blocks[index], keys[index])
            assert block == blocks[index] or self.contents[block] == tuple(tokens[: (index + 1) * size])
            if block != blocks[index] and self.steps:
                self.freed_during[blocks[index]] = self.steps[-1]
            blocks[index] = block
            self.contents[block] = tuple(tokens[: (index + 1) * size])
        for block in hits:
            self.freed_during.pop(block, None)
        self.ids += 1
        self.tables[self.ids] = blocks

    @rule(choice=st.randoms(use_true_random=False))
    def leave(self, choice: object) -> None:
        if self.tables:
            blocks = self.tables.pop(choice.choice(sorted(self.tables)))  # type: ignore[attr-defined]
            self.pool.release(blocks)
            still = {block for table in self.tables.values() for block in table}
            if self.steps:
                self.freed_during.update({block: self.steps[-1] for block in blocks if block not in still})

    @rule()
    def begin(self) -> None:
        self.ids += 1
        self.steps.append(self.ids)
        self.pool.begin_step(self.ids)

    @rule()
    def end(self) -> None:
        if self.steps:
            self.pool.end_step(self.steps.pop(0))
            oldest = self.steps[0] if self.steps else None
            self.freed_during = {b: s for b, s in self.freed_during.items() if oldest is not None and s >= oldest}

    @invariant()
    def accounts_balance(self) -> None:
        self.pool.check_integrity(self.tables.values())
        used = {block for table in self.tables.values() for block in table}
        assert self.pool.n_used == len(used | self.freed_during.keys())


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


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
