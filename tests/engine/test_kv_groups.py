"""KV groups: how layers are split, and requests under random load whose pages behind a window are given back."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.blocks import BlockPool, root_key
from engine.config import SchedulerConfig
from engine.kv_groups import MAX_GROUPS, NULL_BLOCK, KVGroup, kv_groups, layers_per_page
from engine.plan import Accepted, StepPlan, StepResult
from engine.request import Request
from engine.scheduler import Scheduler
from tests.engine.fake_runner import FakeRunner, continuation

ROOT = root_key(salt="", fingerprint="fake", kv_format="tokens")
Windows = Sequence[int | None]


class Load:
    """A scheduler and a fake model, and the requests between them; every answer is compared with the oracle's."""

    def __init__(
        self, windows: Windows, *, n_blocks: int, block_size: int, budget: int, prefix_cache: bool = True
    ) -> None:
        self.groups = tuple(KVGroup(window, (layer,)) for layer, window in enumerate(windows))
        self.runner = FakeRunner(n_blocks, block_size, windows)
        self.scheduler = Scheduler(
            SchedulerConfig(token_budget=budget),
            BlockPool(n_blocks, block_size, prefix_cache=prefix_cache),
            max_model_len=20_000,
            groups=self.groups,
        )
        self.wanted: dict[str, int] = {}
        self.live: dict[str, Request] = {}
        self.finished: list[Request] = []

    def submit(self, prompt: list[int], wanted: int) -> Request:
        request = Request(f"r{len(self.finished)}-{len(self.live)}-{random.random()}", list(prompt), root_key=ROOT)
        self.scheduler.add(request)
        self.live[request.id], self.wanted[request.id] = request, wanted
        return request

    def step(self) -> StepPlan | None:
        plan = self.scheduler.schedule()
        if plan is None:
            return None
        result = StepResult(plan.step_id)
        for request_id, picks in self.runner.run(plan).items():
            tail, n_tail = self.live[request_id].tail, 0
            while n_tail < len(tail) and tail[n_tail] == picks[n_tail]:
                n_tail += 1
            result.accepted[request_id] = Accepted((*tail[:n_tail], picks[n_tail]), n_tail)
        self.scheduler.commit(result)
        self.scheduler.check_integrity()
        for request in [r for r in self.live.values() if len(r.tokens) - r.n_prompt >= self.wanted[r.id]]:
            self.end(request)
        return plan

    def end(self, request: Request) -> None:
        prompt, out = request.tokens[: request.n_prompt], request.tokens[request.n_prompt :]
        assert out == continuation(prompt, len(out), self.runner.windows), "an answer depends on how it was scheduled"
        self.scheduler.finish(request)
        self.finished.append(self.live.pop(request.id))

    def live_pages(self, request: Request, group: int) -> int:
        table = [request.blocks, *request.other_blocks][group]
        return sum(block != NULL_BLOCK for block in table)


windows_of_groups = st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=3).map(
    lambda windows: sorted(windows, key=lambda window: window is not None)
)


@given(st.lists(st.sampled_from([None, None, 4, 4, 4, 7]), min_size=1, max_size=40))
def test_every_layer_is_in_one_group_with_its_window_and_those_that_see_all_come_first(
    windows: list[int | None],
) -> None:
    groups = kv_groups(windows)
    assert sorted(layer for group in groups for layer in group.layers) == list(range(len(windows)))
    assert all(windows[layer] == group.window for group in groups for layer in group.layers)
    assert [group.window is None for group in groups] == sorted(
        (group.window is None for group in groups), reverse=True
    )
    assert len(groups) <= MAX_GROUPS


@pytest.mark.parametrize(
    ("windows", "n_groups", "page"),
    [
        ([None] * 24, 1, 24),
        ([4096] * 32, 1, 32),
        ([4096, None] * 13, 2, 13),  # Gemma 2 2B
        ([*[1024] * 5, None] * 4 + [1024] * 2, 7, 4),  # 26 layers, one in six sees all: 28 places for 26
        ([None] * 21 + [4096] * 3, 8, 3),
    ],
)
def test_pages_are_sized_so_that_little_is_wasted(windows: list[int | None], n_groups: int, page: int) -> None:
    groups = kv_groups(windows)
    assert (len(groups), layers_per_page(groups)) == (n_groups, page)


@given(window=st.integers(1, 40), position=st.integers(0, 200))
def test_what_is_kept_is_what_a_query_reads_and_the_token_before_it(window: int, position: int) -> None:
    read = [key for key in range(position) if key > position - window]
    first = KVGroup(window, (0,)).first_kept(position)
    assert list(range(first, position)) == (read or list(range(position))[-1:])


@settings(max_examples=60)
@example([None, None, 3], 2, 13, 0, True, 0)  # a block of one group is copied in the step that fills the other group's
@given(
    windows=windows_of_groups,
    block_size=st.integers(1, 5),
    budget=st.integers(1, 24),
    slack=st.integers(0, 40),
    prefix_cache=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_answers_under_random_load_are_those_of_each_request_alone(
    windows: list[int | None], block_size: int, budget: int, slack: int, prefix_cache: bool, seed: int
) -> None:
    """Shared prefixes, preemption in pools that hardly hold one request, drafts in part accepted, cancellation."""
    draw = random.Random(seed)
    n_blocks = len(windows) * (-(-40 // block_size) + 1) + slack
    load = Load(windows, n_blocks=n_blocks, block_size=block_size, budget=budget, prefix_cache=prefix_cache)
    trunk = [draw.randrange(2) for _ in range(30)]
    for _ in range(40):
        if len(load.live) < 5:
            prompt = trunk[: draw.randrange(1, 24)] + [draw.randrange(2) for _ in range(draw.randrange(6))]
            load.submit(prompt, draw.randrange(1, 11))
        for request in load.live.values():
            if request.blocks and request.remaining == 1 and draw.random() < 0.3:
                right = continuation(request.tokens, draw.randrange(3), windows)
                request.tail = [*right, *(draw.randrange(5) for _ in range(draw.randrange(3)))]
        load.step()
        if load.live and draw.random() < 0.05:
            load.end(draw.choice(list(load.live.values())))
    while load.step():
        pass
    assert not load.live
    assert load.scheduler.pool.n_used == 0


@given(
    windows=windows_of_groups,
    block_size=st.integers(1, 5),
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    choices=st.lists(st.booleans(), min_size=1, max_size=40),
)
def test_pages_are_not_taken_from_a_step_that_runs_ahead(
    windows: list[int | None], block_size: int, lengths: list[int], choices: list[bool]
) -> None:
    """Two steps in flight: what the first one's commit gives back is not written before the second one is over."""
    load = Load(windows, n_blocks=len(windows) * 100, block_size=block_size, budget=64)
    requests = [load.submit([1 + i % 3] * n, 60) for i, n in enumerate(lengths)]
    flight: tuple[StepPlan, dict[str, int]] | None = None
    for runs_ahead in choices:
        plan, drawn = flight or (load.scheduler.schedule(), {})
        assert plan is not None
        if flight is None:
            drawn = {name: picks[-1] for name, picks in load.runner.run(plan).items()}
        order, flight = list(drawn), None
        ahead = load.scheduler.schedule_ahead({name: i for i, name in enumerate(order)}) if runs_ahead else None
        load.scheduler.commit(StepResult(plan.step_id, {name: Accepted((token,)) for name, token in drawn.items()}))
        load.scheduler.check_integrity()
        if ahead is not None:
            pool = load.scheduler.pool
            others = pool.allocate(pool.n_free)
            for block in others:
                load.runner.pages[block] = [None] * block_size
            pool.release(others)
            rows = tuple(replace(row, tokens=(drawn[order[-1 - row.tokens[0]]],)) for row in ahead.rows)
            answer = load.runner.run(replace(ahead, rows=rows))
            flight = ahead, {name: picks[-1] for name, picks in answer.items()}
    for request in requests:
        out = request.tokens[request.n_prompt :]
        assert out == continuation(request.tokens[: request.n_prompt], len(out), windows)


@given(
    windows=windows_of_groups,
    block_size=st.integers(1, 6),
    shared=st.integers(0, 60),
    first_own=st.integers(1, 30),
    second_own=st.integers(1, 30),
)
def test_a_prefix_hit_finds_all_that_is_shared_whatever_was_given_back(
    windows: list[int | None], block_size: int, shared: int, first_own: int, second_own: int
) -> None:
    """With room for everything, blocks behind a window stay in the cache: a hit is as long as the shared prefix."""
    load = Load(windows, n_blocks=900, block_size=block_size, budget=16)
    for own in ([1] * first_own, [2] * second_own):
        last = load.submit([0] * shared + own, 3)
        while load.step():
            pass
    assert last.timeline.cached_tokens == min(shared, last.n_prompt - 1)


def test_a_hit_needs_only_the_blocks_that_the_window_shows() -> None:
    """The first blocks of a windowed prompt are evicted; what it goes on from is still found."""
    load = Load([4], n_blocks=12, block_size=2, budget=8)
    prompt = [0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1]
    load.submit(prompt, 1)
    while load.step():
        pass
    load.scheduler.pool.allocate(load.scheduler.pool.n_free - 5)
    again = load.scheduler._tables.find(Request("again", [*prompt, 3], root_key=ROOT))
    assert again.n_blocks == 8


@pytest.mark.parametrize("windows", [[8], [None, 8], [3, 8]])
@pytest.mark.parametrize("block_size", [4, 16])
def test_a_request_alone_may_fill_the_pool_to_the_last_block(windows: list[int | None], block_size: int) -> None:
    load = Load(windows, n_blocks=24, block_size=block_size, budget=10)
    length = min(load.scheduler.window, 400)
    request = load.submit([0] * (length - 20), 20)
    while load.step():
        pass
    assert load.finished == [request]
    assert request.timeline.preemptions == 0
    if None in windows:
        assert load.scheduler.window < 400, "a group that keeps every page bounds the context by the pool"


def test_pages_of_a_decode_of_ten_thousand_tokens_stay_constant() -> None:
    window, block_size, budget = 48, 16, 64
    bound = -(-(window - 1 + budget) // block_size) + 1
    load = Load([window], n_blocks=bound, block_size=block_size, budget=budget)
    request = load.submit([1] * 200, 10_000)
    seen = set[int]()
    while load.live:
        plan = load.step()
        assert plan is not None
        assert load.live_pages(request, 0) <= bound
        if request.computed > 400:
            seen.add(load.live_pages(request, 0))
    assert len(request.tokens) == 10_200
    assert seen - {0} == {window // block_size, window // block_size + 1}
    assert load.scheduler.counters.preemptions == 0


@given(windows=windows_of_groups, block_size=st.integers(1, 8), budget=st.integers(1, 40), length=st.integers(1, 150))
def test_live_pages_of_a_windowed_group_stay_within_window_and_budget(
    windows: list[int | None], block_size: int, budget: int, length: int
) -> None:
    load = Load(windows, n_blocks=600, block_size=block_size, budget=budget)
    request = load.submit([0] * length, 20)
    while (plan := load.scheduler.schedule()) is not None:
        for g, window in enumerate(windows):
            if window is not None:
                assert load.live_pages(request, g) <= -(-(max(window, 2) - 1 + budget) // block_size) + 1
        picks = load.runner.run(plan)
        load.scheduler.commit(StepResult(plan.step_id, {name: Accepted((pick[-1],)) for name, pick in picks.items()}))
        if len(request.tokens) == length + 20:
            load.end(request)


@given(windows=windows_of_groups, block_size=st.integers(1, 4), n_blocks=st.integers(1, 8), data=st.data())
def test_a_hit_is_the_longest_of_which_every_group_holds_what_it_needs(
    windows: list[int | None], block_size: int, n_blocks: int, data: st.DataObject
) -> None:
    """Against the definition, whatever blocks happen to be left of each group."""
    load = Load(windows, n_blocks=100, block_size=block_size, budget=64)
    prompt = [1] * (n_blocks * block_size)
    load.submit(prompt, 1)
    while load.step():
        pass
    lost = data.draw(st.lists(st.tuples(st.integers(0, len(windows) - 1), st.integers(0, n_blocks - 1))))
    pool, found = load.scheduler.pool, Request("found", [*prompt, 1], root_key=ROOT)
    load.scheduler._tables.find(found)  # makes the keys
    keys = {(g, index): found.keys[index] + (bytes((g,)) if g else b"") for g, index in lost}
    for key in {keys[pair] for pair in lost}:
        pool._forget(pool._by_key[key])

    def is_held(n: int) -> bool:
        for g, window in enumerate(windows):
            first = 0 if window is None else max(0, n * block_size - max(window, 2) + 1) // block_size
            if any((g, index) in lost for index in range(first, n)):
                return False
        return True

    hit = load.scheduler._tables.find(Request("again", [*prompt, 1], root_key=ROOT))
    assert hit.n_blocks == max(n for n in range(n_blocks + 1) if is_held(n))
