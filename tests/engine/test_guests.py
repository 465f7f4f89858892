"""Guests use what nobody needs (what their pages hold, under any history: test_scheduler_machine.py)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block_tables import BlockTables
from engine.blocks import BlockPool
from engine.config import SchedulerConfig
from engine.guests import Guests
from engine.request import Request
from tests.engine.fake_core import FakeCore
from tests.engine.keys import HOME, root_of


def guest_of(n: int, name: str = "guest") -> Request:
    return Request(name, [i % 5 for i in range(n)], root_key=root_of(HOME))


def guests_of(n_blocks: int, block_size: int = 4) -> tuple[Guests, BlockPool]:
    pool = BlockPool(n_blocks, block_size)
    return Guests(BlockTables(pool, max_chunk=64), pool), pool


def computed(guests: Guests, guest: Request, n: int) -> None:
    """As if n more known tokens had been computed."""
    guests.row(guest, n, n_logits=0, is_draft=False)
    guest.computed += n
    guests.offer(guest)


def history(seed: int, visits: random.Random | None = None) -> tuple[list[object], int]:
    """What the requests of a model got and waited for, step by step, and how often a guest was computed beside them.

    visits: draws the guests; None for none. Without a prefix cache, since guests leave prefixes there, and without
    tails: a guess takes no pages from anybody, guests included.
    """
    draw = random.Random(seed)
    config = SchedulerConfig(token_budget=draw.randrange(4, 24), max_rows=4, max_waiting_requests=9)
    pool = BlockPool(draw.randrange(6, 20), draw.randrange(1, 5), prefix_cache=False)
    core = FakeCore(config, pool, draw, max_held=2)
    found = list[object]()
    for _ in range(60):
        if len(core.live) < 5:
            prompt = [draw.randrange(2) for _ in range(draw.randrange(1, 16))]
            core.submit(prompt, draw.randrange(1, 25), priority=draw.randrange(3), holds=draw.random() < 0.2)
        if core.held() and draw.random() < 0.5:
            core.resume(core.held()[0])
        if visits is not None:
            core.draw = visits
            for _ in range(visits.randrange(4)):
                core.visit([visits.randrange(2) for _ in range(visits.randrange(1, 16))])
            core.draw = draw
        plan = core.step()
        rows = () if plan is None else plan.rows
        found.append([(row.request_id, row.start, row.tokens, row.n_logits) for row in rows])
        counters = core.scheduler.counters
        found.append((counters.preemptions, counters.holds_released, core.scheduler.n_waiting))
    return found, core.happened["guest computed"]


def test_no_request_of_the_model_itself_waits_or_gives_way_for_a_guest() -> None:
    """Step by step the same as where there are none."""
    computed = list[int]()

    @settings(max_examples=60)
    @given(seed=st.integers(0, 2**16))
    def law(seed: int) -> None:
        found, n_guests = history(seed, random.Random(seed))
        assert found == history(seed)[0]
        computed.append(n_guests)

    law()
    assert sum(computed) > 100


def test_no_guest_takes_from_another_and_hosts_take_from_whoever_was_used_longest_ago() -> None:
    guests, pool = guests_of(6)
    first, second, third = (guest_of(7, name) for name in ("first", "second", "third"))
    for guest in (first, second):
        assert guests.place(guest, 0)
    first.tokens += [9] * 4
    assert guests.grow(first, 9, 0)
    assert not guests.place(third, 0) or pool.n_free == 0
    assert first.blocks
    assert second.blocks
    assert not guests.grow(second, 17, 0)
    assert guests.reclaim()
    assert (bool(first.blocks), bool(second.blocks)) == (True, False)
    while guests.reclaim():
        pass
    guests.leave(first)
    assert pool.n_free == pool.n_blocks


def test_a_guest_that_leaves_before_its_copy_was_made_shares_none_of_it() -> None:
    guests, _ = guests_of(20)
    known, guest = guest_of(6, "known"), guest_of(12)
    assert guests.place(known, 0)
    computed(guests, known, 6)
    guests.leave(known)
    assert guests.place(guest, 0)
    assert guest.computed == 6, "4 tokens are shared, 2 are to be copied"
    guests.leave(guest)
    assert guests.take_copies() == ()
    other = guest_of(12, "other")
    assert guests.place(other, 0)
    [(source, _)] = guests.take_copies()
    assert source not in other.blocks
    assert other.computed == 6


@pytest.mark.parametrize("reserve", [0, 1, 2, 3])
def test_blocks_that_hosts_may_need_are_left_free(reserve: int) -> None:
    guests, pool = guests_of(4)
    guest = guest_of(4)
    assert guests.place(guest, reserve)
    assert guests.grow(guest, 9, reserve) == (reserve <= 1)
    assert pool.n_free >= reserve
    assert not guests.place(guest_of(17, "too large"), 0)
    assert list(guests) == [guest], "nothing was given up in vain"


def test_guesses_are_never_found_by_anybody() -> None:
    """Only what was computed in ordinary rows is shared, also by one that leaves in the middle of a block."""
    guests, _ = guests_of(20)
    guest = guest_of(12)
    assert guests.n_cached(guest) == 0
    assert guests.place(guest, 0)
    computed(guests, guest, 6)
    guests.grow(guest, 12, 0)
    guest.computed = 12  # the others were guesses
    assert guests.n_cached(guest_of(12, "other")) == 4
    guests.leave(guest)
    assert guests.n_cached(guest_of(12, "other")) == 6
    other = guest_of(12, "other")
    assert guests.place(other, 0)
    assert (other.computed, len(guests.take_copies())) == (6, 1)
