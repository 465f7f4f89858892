"""The block pool in any history, against a plain account of what each operation means: places, references, LRU order.

The numbers in the comments are those of docs/invariants.md.
"""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.blocks import BlockPool, NoFreeBlocks
from tests.engine.keys import SCOPES, Scope, keys_of, root_of

WHICH = st.integers(0, 30)


@dataclass
class Table:
    """A request's tokens and blocks, of which the first n_offered were offered to the cache."""

    scope: Scope
    tokens: list[int]
    blocks: list[int]
    n_offered: int


class PoolMachine(RuleBasedStateMachine):
    """Requests come, fill their blocks, grow and leave; steps begin and end at any time.

    The account: what each findable block holds, which blocks are free in the order in which they became so, and which
    wait for the end of a step. References are counted in the tables.
    """

    def __init__(self, happened: Counter[str]) -> None:
        super().__init__()
        self.happened = happened

    @initialize(n_blocks=st.integers(4, 16), block_size=st.integers(1, 3))
    def start(self, n_blocks: int, block_size: int) -> None:
        self.pool, self.size = BlockPool(n_blocks, block_size), block_size
        self.tables: list[Table] = []
        self.holds: dict[int, tuple[Scope, tuple[int, ...]]] = {}  # findable block -> scope, all tokens up to its end
        self.blank = set(range(n_blocks))
        self.idle: list[int] = []
        self.waiting: dict[int, int] = {}  # block -> the newest step that was open when it was freed
        self.steps: list[int] = []
        self.n_steps = self.n_evicted = 0

    @rule(seed=st.integers(0, 2**16), copies=st.integers(1, 3))
    def admit(self, seed: int, copies: int) -> None:
        """Equal prompts at once are computed side by side."""
        draw = random.Random(seed)
        scope, tokens = draw.choice(SCOPES[:3]), [0] * draw.randrange(9) + [draw.randrange(2), 0]
        for _ in range(copies):
            self.admit_one(scope, list(tokens))

    def admit_one(self, scope: Scope, tokens: list[int]) -> None:
        keys = keys_of(tokens, self.size, root_of(scope))
        n_hits = self.pool.lookup(keys)
        prefixes = [(scope, tuple(tokens[: (i + 1) * self.size])) for i in range(len(keys))]
        known = set(self.holds.values())
        assert n_hits == next((i for i, prefix in enumerate(prefixes) if prefix not in known), len(keys))
        hits = [block for prefix in prefixes[:n_hits] for block, held in self.holds.items() if held == prefix]
        n_idle = len(set(hits) & set(self.idle))
        assert self.pool.n_idle(keys[:n_hits]) == n_idle
        n_fresh = self.pool.blocks_for(len(tokens)) - n_hits
        if n_fresh <= self.pool.n_free - n_idle:
            assert self.pool.acquire(keys[:n_hits]) == hits  # 4, 8, 9
            self.reference(hits)
            self.tables.append(Table(scope, tokens, hits + self.allocate(n_fresh), n_hits))
            self.happened["admitted"] += 1

    @precondition(lambda self: self.tables)
    @rule(which=WHICH, n=st.integers(1, 9))
    def fill(self, which: int, n: int) -> None:
        """The next n blocks of a request are full: whoever computed the same before keeps the block."""
        table = self.tables[which % len(self.tables)]
        keys = keys_of(table.tokens, self.size, root_of(table.scope))
        for index in range(table.n_offered, min(table.n_offered + n, len(keys))):
            mine, content = table.blocks[index], (table.scope, tuple(table.tokens[: (index + 1) * self.size]))
            twin = next((block for block, held in self.holds.items() if held == content), None)
            block = self.pool.register(mine, keys[index])
            assert block == (mine if twin is None else twin)
            table.blocks[index] = block
            table.n_offered += 1
            if twin is None:
                self.holds[mine] = content
            else:
                self.reference([twin])
                self.put_aside([mine])
                self.happened["merged"] += 1

    @precondition(lambda self: self.tables)
    @rule(which=WHICH, token=st.integers(0, 1))
    def grow(self, which: int, token: int) -> None:
        table = self.tables[which % len(self.tables)]
        missing = self.pool.blocks_for(len(table.tokens) + 1) - len(table.blocks)
        if missing <= self.pool.n_free:
            table.tokens.append(token)
            table.blocks += self.allocate(missing)

    @precondition(lambda self: self.tables)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        blocks = self.tables.pop(which % len(self.tables)).blocks
        self.pool.release(blocks)
        self.put_aside(blocks[::-1])

    @rule()
    def begin(self) -> None:
        self.n_steps += 1
        self.steps.append(self.n_steps)
        self.pool.begin_step(self.n_steps)

    @precondition(lambda self: self.steps)
    @rule(which=WHICH)
    def end(self, which: int) -> None:
        self.pool.end_step(self.steps.pop(which % len(self.steps)))
        over = [block for block, step in self.waiting.items() if not any(opened <= step for opened in self.steps)]
        for block in over:
            del self.waiting[block]
            self.put_back(block)
        self.happened["kept for a step"] += len(over)

    @rule()
    def ask_too_much(self) -> None:
        with pytest.raises(NoFreeBlocks):
            self.pool.allocate(self.pool.n_free + 1)

    @invariant()
    def accounts_balance(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.happened["operations"] += 1
        self.pool.check_integrity([table.blocks for table in self.tables])
        used = {block for table in self.tables for block in table.blocks}
        places = [*used, *self.blank, *self.idle, *self.waiting]
        assert sorted(places) == list(range(self.pool.n_blocks))  # 1, 2, 3
        assert self.pool.n_free == len(self.blank) + len(self.idle)
        assert self.pool.evictions == self.n_evicted
        writable = Counter(block for table in self.tables for block in table.blocks[table.n_offered :])
        assert all(n == 1 for n in writable.values())  # 5
        for scope, tokens in self.holds.values():  # 4, and 6: no block outlives the blocks before it
            assert self.pool.lookup(keys_of(list(tokens), self.size, root_of(scope))) == len(tokens) // self.size

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            while self.tables:
                self.leave(0)
            while self.steps:
                self.end(0)
            assert self.pool.n_free == self.pool.n_blocks  # 7

    def allocate(self, n: int) -> list[int]:
        """Blank blocks first; then those that became free first, which are found no more."""
        blocks = self.pool.allocate(n)
        for block in blocks:
            if self.blank:
                self.blank.remove(block)
            else:
                assert block == self.idle.pop(0), "not the block that has been free longest"  # 6
                del self.holds[block]
                self.n_evicted += 1
                self.happened["evicted"] += 1
        return blocks

    def reference(self, blocks: list[int]) -> None:
        """Somebody uses them (again)."""
        self.idle = [block for block in self.idle if block not in blocks]
        for block in blocks:
            self.waiting.pop(block, None)

    def put_aside(self, blocks: list[int]) -> None:
        """Somebody no longer uses them."""
        for block in blocks:
            if not any(block in table.blocks for table in self.tables):
                if self.steps:
                    self.waiting[block] = self.steps[-1]
                else:
                    self.put_back(block)

    def put_back(self, block: int) -> None:
        """Free from now on."""
        if block in self.holds:
            self.idle.append(block)
        else:
            self.blank.add(block)


def test_ten_thousand_operations_in_any_order_keep_the_accounts() -> None:
    happened: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: PoolMachine(happened),
        settings=settings(max_examples=260, stateful_step_count=60, suppress_health_check=[HealthCheck.too_slow]),
    )
    assert happened["operations"] >= 10_000
    assert min(happened[name] for name in ("admitted", "merged", "evicted", "kept for a step")) >= 10
