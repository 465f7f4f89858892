"""The scheduler under random load, driven with a fake model whose answers depend on the pages' contents."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.blocks import BlockPool, root_key
from engine.config import SchedulerConfig
from engine.plan import Accepted, StepPlan, StepResult
from engine.request import Request, RequestRefused, RequestStatus
from engine.scheduler import Scheduler
from tests.engine.fake_runner import VOCAB, FakeRunner, continuation

ROOTS = [root_key(salt=salt, fingerprint="fake", kv_format="tokens") for salt in ("a", "b")]


@dataclass
class Live:
    """What the test knows of a request: its prompt, and how many tokens it still wants."""

    request: Request
    prompt: list[int]
    wanted: int


class Driver:
    """Plays the engine core: submits, runs steps, verifies tails, finishes, compares every answer with the oracle."""

    def __init__(self, scheduler: Scheduler, draw: random.Random) -> None:
        self.scheduler, self.draw = scheduler, draw
        self.runner = FakeRunner(scheduler.pool.n_blocks, scheduler.pool.block_size)
        self.live: dict[str, Live] = {}
        self.kept: dict[str, int] = {}
        self.finished = self.ids = 0
        self.forces = True  # now and then two tokens follow without sampling

    def submit(
        self, prompt: list[int], wanted: int, *, priority: int = 0, root: bytes = ROOTS[0], holds: bool = False
    ) -> None:
        self.ids += 1
        request = Request(str(self.ids), list(prompt), priority=priority, root_key=root, holds=holds)
        code = "accepted"
        try:
            self.scheduler.add(request)
        except RequestRefused as refusal:
            code = refusal.code
        assert code in {"accepted", "too_long", "overloaded"}
        assert (code == "too_long") == (len(prompt) >= self.scheduler.window)
        if code == "accepted":
            self.live[request.id] = Live(request, list(prompt), wanted)

    def drop(self, request_id: str) -> None:
        self.scheduler.finish(self.live.pop(request_id).request)

    def held(self) -> list[str]:
        return [key for key, live in self.live.items() if live.request.status is RequestStatus.HELD]

    def resume(self, request_id: str, forced: int) -> None:
        live = self.live[request_id]
        more = continuation(live.prompt, min(forced, live.wanted - 1, self.scheduler.window - len(live.prompt) - 1))
        self.scheduler.extend(live.request, more)
        self.scheduler.resume(live.request)

    def step(self, cancel_in_flight: bool = False) -> StepPlan | None:
        before = {r.id: (r.computed, len(r.tokens), r.timeline.preemptions) for r in self.scheduler.requests()}
        running = {r.id for r in self.scheduler.requests() if r.status is RequestStatus.RUNNING}
        plan = self.scheduler.schedule()
        if plan is None:
            assert not self.scheduler.has_work, "requests are live and none can move"
            return None
        assert plan.n_tokens <= self.scheduler.config.token_budget
        assert plan.rows or plan.resumed
        predictions = self.runner.run(plan)
        if cancel_in_flight and self.live:
            self.drop(self.draw.choice(sorted(self.live)))
        result = StepResult(plan.step_id)
        resumed = {request_id: [self.kept[request_id]] for request_id in plan.resumed}
        for request_id, picks in (predictions | resumed).items():
            if request_id in self.live:
                self._accept(self.live[request_id], picks, result)
        self.scheduler.commit(result)
        self.scheduler.check_integrity()
        for request_id in running & self.live.keys():
            request = self.live[request_id].request
            computed, n_tokens, preemptions = before[request_id]
            moved = request.computed > computed or len(request.tokens) > n_tokens
            left = request.timeline.preemptions > preemptions or request.status is RequestStatus.HELD
            assert moved or left, "a running request stood still"
        for request_id in [key for key, live in self.live.items() if self._is_done(live)]:
            self._check(self.live[request_id])
            self.drop(request_id)
            self.finished += 1
        return plan

    def _accept(self, live: Live, picks: list[int], result: StepResult) -> None:
        request = live.request
        if request.holds:
            self.kept[request.id] = picks[-1]
            return
        n_tail = 0
        while n_tail < len(request.tail) and request.tail[n_tail] == picks[n_tail]:
            n_tail += 1
        tokens = [*request.tail[:n_tail], picks[n_tail]]
        room = min(live.wanted, self.scheduler.window - len(live.prompt)) - (len(request.tokens) - len(live.prompt))
        forced = continuation([*request.tokens, *tokens], self.draw.choice([0, 0, 0, 2]) if self.forces else 0)
        tokens = [*tokens, *forced][:room]
        result.accepted[request.id] = Accepted(tuple(tokens), min(n_tail, len(tokens) - 1))

    def propose(self) -> None:
        """Give every request that waits for one token a tail: partly right, partly junk."""
        for live in self.live.values():
            request = live.request
            if request.status is RequestStatus.RUNNING and request.remaining == 1 and not request.holds:
                right = continuation(request.tokens, self.draw.randrange(4))
                junk = [self.draw.randrange(VOCAB) for _ in range(self.draw.randrange(3))]
                request.tail = [*right, *junk]

    def _is_done(self, live: Live) -> bool:
        n_out = len(live.request.tokens) - len(live.prompt)
        return not live.request.holds and (n_out >= live.wanted or len(live.request.tokens) >= self.scheduler.window)

    def _check(self, live: Live) -> None:
        request, timeline = live.request, live.request.timeline
        out = request.tokens[len(live.prompt) :]
        assert out == continuation(live.prompt, len(out)), "scheduling changed an answer"
        assert timeline.prompt_tokens == timeline.cached_tokens + timeline.computed_tokens
        assert timeline.recomputed_tokens == 0 or timeline.preemptions or request.id in self.kept


def driver_of(
    config: SchedulerConfig, n_blocks: int, block_size: int, draw: random.Random, **options: object
) -> Driver:
    pool = BlockPool(n_blocks, block_size, prefix_cache=bool(options.pop("prefix_cache", True)))
    return Driver(Scheduler(config, pool, max_model_len=64, **options), draw)  # type: ignore[arg-type]


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of submitting, preparing, resuming, releasing, cancelling (also in flight), proposing and stepping."""

    @initialize(
        n_blocks=st.integers(2, 14),
        block_size=st.integers(1, 4),
        budget=st.integers(1, 24),
        rows=st.integers(1, 6),
        cap=st.none() | st.integers(1, 8),
        max_held=st.integers(0, 3),
        prefix_cache=st.booleans(),
        seed=st.integers(0, 2**16),
    )
    def start(
        self,
        n_blocks: int,
        block_size: int,
        budget: int,
        rows: int,
        cap: int | None,
        max_held: int,
        prefix_cache: bool,
        seed: int,
    ) -> None:
        config = SchedulerConfig(
            token_budget=budget, max_rows=rows, prefill_cap=cap, max_waiting_tokens=120, max_waiting_requests=8
        )
        self.driver = driver_of(
            config, n_blocks, block_size, random.Random(seed), max_held=max_held, prefix_cache=prefix_cache
        )

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=20),
        wanted=st.integers(1, 9),
        priority=st.integers(0, 2),
        tenant=st.integers(0, 1),
        holds=st.booleans(),
    )
    def submit(self, prompt: list[int], wanted: int, priority: int, tenant: int, holds: bool) -> None:
        self.driver.submit(prompt, wanted, priority=priority, root=ROOTS[tenant], holds=holds)

    @rule(which=st.integers(0, 9), forced=st.integers(0, 3))
    def resume(self, which: int, forced: int) -> None:
        if held := self.driver.held():
            self.driver.resume(held[which % len(held)], forced)

    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        if self.driver.live:
            self.driver.drop(sorted(self.driver.live)[which % len(self.driver.live)])

    @rule(cancel_in_flight=st.booleans())
    def step(self, cancel_in_flight: bool) -> None:
        self.driver.step(cancel_in_flight)

    @rule(n=st.integers(2, 12))
    def steps(self, n: int) -> None:
        for _ in range(n):
            self.driver.step()

    @rule()
    def propose(self) -> None:
        self.driver.propose()

    @invariant()
    def nothing_contradicts(self) -> None:
        self.driver.scheduler.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        for request_id in self.driver.held():
            self.driver.drop(request_id)
        for _ in range(4000):
            if self.driver.step() is None and not self.driver.held():
                break
            for request_id in self.driver.held():
                self.driver.drop(request_id)
        assert not self.driver.live, "requests were left over"
        assert self.driver.scheduler.pool.n_free == self.driver.scheduler.pool.n_blocks, "blocks leaked"
        assert self.driver.scheduler.waiting_tokens == 0


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def test_ten_thousand_steps_of_random_load_give_every_answer_right() -> None:
    draw = random.Random(7)
    config = SchedulerConfig(token_budget=48, max_rows=8, prefill_cap=16, max_waiting_requests=32)
    driver = driver_of(config, 40, 4, draw, max_held=4)
    steps = 0
    while steps < 10_000:
        if len(driver.live) < 24:
            prompt = [draw.randrange(2) for _ in range(draw.randrange(1, 40))]
            driver.submit(prompt, draw.randrange(1, 24), priority=draw.randrange(2), holds=draw.random() < 0.3)
        if draw.random() < 0.05:
            driver.propose()
        if draw.random() < 0.02 and driver.live:
            driver.drop(draw.choice(sorted(driver.live)))
        held = driver.held()
        if held and (draw.random() < 0.5 or len(driver.live) >= 24):
            driver.resume(held[0], draw.randrange(3))
        steps += driver.step() is not None
    counters = driver.scheduler.counters
    assert driver.finished > 1000
    assert counters.preemptions > 100
    assert counters.prefix_hits > 100
    assert counters.holds_released > 10


def test_a_prompt_that_can_never_fit_is_refused_when_it_arrives() -> None:
    driver = driver_of(SchedulerConfig(), 4, 4, random.Random(0))
    with pytest.raises(RequestRefused, match="16 tokens and the window 16") as refusal:
        driver.scheduler.add(Request("r", [0] * 16))
    assert refusal.value.code == "too_long"
    assert refusal.value.retry_after_s is None
    driver.scheduler.add(Request("s", [0] * 15))


def test_a_full_queue_refuses_with_the_time_it_needs_to_drain() -> None:
    config = SchedulerConfig(max_waiting_requests=8, max_waiting_tokens=20)
    driver = driver_of(config, 40, 4, random.Random(0), drain_s=lambda tokens: tokens / 10)
    driver.scheduler.add(Request("a", [0] * 15))
    with pytest.raises(RequestRefused, match="1 requests with 15 tokens are waiting") as refusal:
        driver.scheduler.add(Request("b", [0] * 6))
    assert (refusal.value.code, refusal.value.retry_after_s) == ("overloaded", 1.5)


def test_a_prompt_above_the_queue_limit_is_taken_by_an_empty_queue() -> None:
    driver = driver_of(SchedulerConfig(max_waiting_tokens=4), 40, 4, random.Random(0))
    driver.submit([0] * 20, 2)
    while driver.step():
        pass
    assert driver.finished == 1


def test_a_decode_advances_in_every_step_beside_a_long_prompt() -> None:
    driver = driver_of(SchedulerConfig(token_budget=8), 40, 4, random.Random(0))
    driver.submit([0, 1], 30)
    driver.step()
    driver.submit([1] * 50, 1)
    rows = [driver.step() for _ in range(6)]
    assert all(plan is not None and plan.rows[0].request_id == "1" for plan in rows)
    assert [plan.n_tokens for plan in rows if plan][1:] == [8] * 5


def test_a_long_draft_leaves_every_later_request_its_token() -> None:
    driver = driver_of(SchedulerConfig(token_budget=4), 40, 4, random.Random(0))
    driver.forces = False
    for _ in range(3):
        driver.submit([0, 1], 9)
        driver.step()
    first = driver.live["1"].request
    first.tail = continuation(first.tokens, 3)
    plan = driver.step()
    assert plan is not None
    assert [row.request_id for row in plan.rows] == ["1", "2", "3"]
    assert plan.resumed == ()


def test_a_draft_is_cut_to_the_budget() -> None:
    driver = driver_of(SchedulerConfig(token_budget=4), 40, 4, random.Random(0))
    driver.forces = False
    driver.submit([0, 1], 9)
    driver.step()
    request = driver.live["1"].request
    request.tail = continuation(request.tokens, 7)
    plan = driver.step()
    assert plan is not None
    assert [(row.n, row.n_logits) for row in plan.rows] == [(4, 4)]


def test_the_lowest_priority_and_then_the_newest_is_preempted_first() -> None:
    driver = driver_of(SchedulerConfig(max_rows=4), 14, 2, random.Random(0), prefix_cache=False)
    for priority in (0, 1, 0):
        driver.submit([0, 1, 0], 14, priority=priority)
        driver.step()
    order: list[str] = []
    while driver.step():
        order.extend(key for key, live in driver.live.items() if live.request.timeline.preemptions and key not in order)
    assert order[0] == "3"
    assert "2" not in order
    assert driver.finished == 3


def test_waiting_requests_are_admitted_in_order_and_never_overtaken() -> None:
    driver = driver_of(SchedulerConfig(max_rows=2, token_budget=64), 16, 4, random.Random(0), prefix_cache=False)
    admitted: list[str] = []
    for length in (30, 25, 1, 1):
        driver.submit([0] * length, 3)
    while driver.step():
        ready = [
            r.id for r in driver.scheduler.requests() if r.status is not RequestStatus.WAITING and r.id not in admitted
        ]
        admitted.extend(ready)
    assert admitted == sorted(admitted)


def test_a_resumed_request_computes_none_of_its_prompt_again() -> None:
    driver = driver_of(SchedulerConfig(), 20, 4, random.Random(0))
    driver.submit([0, 1, 1, 0, 1], 1, holds=True)
    assert driver.step() is not None
    computed = driver.scheduler.counters.prompt_tokens_computed
    driver.resume("1", 0)
    plan = driver.step()
    assert plan is not None
    assert (plan.rows, plan.resumed) == ((), ("1",))
    assert driver.scheduler.counters.prompt_tokens_computed == computed == 5
    assert driver.scheduler.counters.tokens_recomputed == 0
    assert driver.finished == 1


def test_the_oldest_held_request_gives_way_and_is_recomputed_unseen() -> None:
    driver = driver_of(SchedulerConfig(), 4, 4, random.Random(0), prefix_cache=False)
    driver.submit([0, 1, 1, 0, 1], 3, holds=True)
    driver.step()
    driver.submit([1, 1, 0], 3, holds=True)
    driver.step()
    driver.submit([1, 0, 0, 1, 1], 1)
    driver.step()
    assert driver.scheduler.counters.holds_released == 1
    for request_id in driver.held():
        driver.resume(request_id, 0)
    while driver.step():
        pass
    assert driver.finished == 3
    assert driver.scheduler.counters.tokens_recomputed == 5


def test_deadlines_are_reported_once_and_only_for_live_requests() -> None:
    now = [0.0]
    driver = driver_of(SchedulerConfig(), 20, 4, random.Random(0), clock=lambda: now[0])
    requests = [Request(str(i), [0, 1], deadline_s=float(i)) for i in (1, 2, 3)]
    for request in requests:
        driver.scheduler.add(request)
    driver.scheduler.finish(requests[0])
    assert driver.scheduler.earliest_deadline() == 2.0
    now[0] = 2.5
    assert driver.scheduler.expired() == [requests[1]]
    assert driver.scheduler.expired() == []


def test_a_plan_must_be_committed_before_the_next_one() -> None:
    driver = driver_of(SchedulerConfig(), 20, 4, random.Random(0))
    driver.submit([0, 1], 2)
    plan = driver.scheduler.schedule()
    assert plan is not None
    with pytest.raises(RuntimeError, match="commit it before"):
        driver.scheduler.schedule()
    with pytest.raises(RuntimeError, match="not the one in flight"):
        driver.scheduler.commit(StepResult(plan.step_id + 1))
