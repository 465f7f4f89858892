"""The scheduler under anything that may happen to it, in any order: the law of blocks and scheduling, step by step."""

import random
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from engine.blocks import BlockPool
from engine.config import SchedulerConfig
from engine.cost_model import CostModel
from tests.engine.costs import linear_cost_model
from tests.engine.fake_core import FakeCore
from tests.engine.keys import SCOPES

TEXTS = [[(i * i + text) // 3 % 2 for i in range(40)] for text in range(2)]
WHICH = st.integers(0, 30)
SEEDS = st.integers(0, 2**16)


def draw_prompt(draw: random.Random) -> list[int]:
    """A beginning of one of two texts, so that requests share blocks, and a little of its own."""
    return TEXTS[draw.randrange(2)][: draw.randrange(17)] + [draw.randrange(2) for _ in range(draw.randrange(1, 4))]


class SchedulerMachine(RuleBasedStateMachine):
    """Submitting, preparing, resuming, cancelling (also in flight), expiring, proposing, lodging guests, probing the
    cache, stepping.

    The FakeCore checks every step. What a rule needs many numbers for is drawn from a seed: hypothesis chooses the
    history, and would take longer to choose the prompts than the scheduler takes to serve them.
    """

    def __init__(self, happened: Counter[str], cost_model: CostModel) -> None:
        super().__init__()
        self.happened, self.cost_model = happened, cost_model
        self.core: FakeCore | None = None

    @initialize(
        n_blocks=st.integers(6, 16),
        block_size=st.integers(1, 4),
        budget=st.integers(1, 24),
        rows=st.integers(1, 6),
        cap=st.none() | st.integers(1, 8),
        max_held=st.integers(0, 3),
        min_chunk=st.none() | st.integers(1, 4),
        prefix_cache=st.booleans(),
        seed=SEEDS,
    )
    def start(
        self,
        n_blocks: int,
        block_size: int,
        budget: int,
        rows: int,
        cap: int | None,
        max_held: int,
        min_chunk: int | None,
        prefix_cache: bool,
        seed: int,
    ) -> None:
        """min_chunk: None keeps prompts as long as the budget allows, whatever they cost the answers beside them."""
        config = SchedulerConfig(
            token_budget=budget,
            max_rows=rows,
            prefill_cap=cap,
            max_waiting_tokens=80,
            max_waiting_requests=6,
            min_chunk=min_chunk or 1,
        )
        pool = BlockPool(n_blocks, block_size, prefix_cache=prefix_cache)
        cost_model = self.cost_model if min_chunk else None
        self.core = FakeCore(config, pool, random.Random(seed), max_held=max_held, cost_model=cost_model)
        self.core.happened = self.happened

    @property
    def driven(self) -> FakeCore:
        assert self.core is not None
        return self.core

    @rule(n=st.integers(1, 5), seed=SEEDS)
    def submit(self, n: int, seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(n):
            self.driven.submit(
                draw_prompt(draw),
                draw.randrange(1, 25),
                priority=draw.randrange(3),
                scope=draw.choice(SCOPES),
                deadline_s=draw.choice([None, None, self.driven.now + draw.randrange(1, 12)]),
                forced=draw.randrange(4),
            )

    @rule(seed=SEEDS)
    def prepare(self, seed: int) -> None:
        draw = random.Random(seed)
        self.driven.submit(draw_prompt(draw), draw.randrange(1, 25), scope=draw.choice(SCOPES), holds=True)

    @precondition(lambda self: any(live.request.holds for live in self.driven.live.values()))
    @rule(which=WHICH, forced=st.integers(0, 3), priority=st.integers(-1, 2), seconds=st.none() | st.integers(1, 12))
    def resume(self, which: int, forced: int, priority: int, seconds: int | None) -> None:
        prepared = [key for key, live in self.driven.live.items() if live.request.holds]
        deadline_s = None if seconds is None else self.driven.now + seconds
        self.driven.resume(prepared[which % len(prepared)], forced, priority=priority, deadline_s=deadline_s)
        self.happened["resumed"] += 1

    @precondition(lambda self: self.driven.live)
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        self.driven.drop(sorted(self.driven.live)[which % len(self.driven.live)])
        self.driven.check()
        self.happened["cancelled"] += 1

    @rule(seconds=st.integers(0, 6))
    def pass_time(self, seconds: int) -> None:
        self.driven.pass_time(float(seconds))
        self.driven.check()

    @rule(cancel_in_flight=st.booleans())
    def step(self, cancel_in_flight: bool) -> None:
        self.driven.step(cancel_in_flight)

    @rule(n=st.integers(10, 40), proposes=st.booleans())
    def steps(self, n: int, proposes: bool) -> None:
        for _ in range(n):
            if proposes:
                self.driven.propose()
            self.driven.step()

    @rule(n=st.integers(1, 6))
    def visit(self, n: int) -> None:
        for _ in range(n):
            self.driven.visit(draw_prompt(self.driven.draw))

    @rule(seed=SEEDS)
    def probe(self, seed: int) -> None:
        draw = random.Random(seed)
        self.driven.probe(draw_prompt(draw), draw.choice(SCOPES))

    def teardown(self) -> None:
        if self.core is not None:
            self.core.drain()
            self.happened["released"] += self.core.scheduler.counters.holds_released
            self.happened["evicted"] += self.core.pool.evictions


def test_ten_thousand_steps_of_any_history_break_no_law() -> None:
    happened, cost_model = Counter[str](), linear_cost_model()
    run_state_machine_as_test(
        lambda: SchedulerMachine(happened, cost_model),
        settings=settings(max_examples=400, stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow]),
    )
    assert happened["steps"] >= 10_000
    wanted = ["finished", "cancelled", "expired", "resumed", "released", "preempted", "hit", "copied", "evicted"]
    wanted += ["moved", "guest computed", "guest hit", "guest took back", "guest reclaimed"]
    never = set(wanted) - {name for name, n in happened.items() if n >= 20}
    assert not never, f"hardly ever seen: {never}"
    assert min(happened["tail accepted"], happened["tail rejected"], happened["too_long"], happened["overloaded"]) >= 20


def test_ten_thousand_steps_of_steady_load_give_every_answer_right() -> None:
    draw = random.Random(7)
    config = SchedulerConfig(token_budget=48, max_rows=8, prefill_cap=16, max_waiting_requests=32)
    core = FakeCore(config, BlockPool(40, 4), draw, max_held=4)
    while core.happened["steps"] < 10_000:
        if len(core.live) < 24:
            prompt = [draw.randrange(2) for _ in range(draw.randrange(1, 40))]
            core.submit(prompt, draw.randrange(1, 24), priority=draw.randrange(2), holds=draw.random() < 0.3)
        if draw.random() < 0.05:
            core.propose()
        if draw.random() < 0.02 and core.live:
            core.drop(draw.choice(sorted(core.live)))
        held = core.held()
        if held and (draw.random() < 0.5 or len(core.live) >= 24):
            core.resume(held[0], draw.randrange(3))
        core.step()
    counters = core.scheduler.counters
    assert core.happened["finished"] > 1000
    assert counters.preemptions > 100
    assert counters.prefix_hits > 100
    assert counters.holds_released > 10
