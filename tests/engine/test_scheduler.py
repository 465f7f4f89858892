"""The scheduler by example: who goes first, what is refused, who gives way (any history: test_scheduler_machine.py)."""

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.blocks import BlockPool
from engine.config import SchedulerConfig
from engine.plan import Accepted, StepResult
from engine.request import Request, RequestRefused, RequestStatus
from engine.scheduler import Scheduler
from tests.engine.costs import STEP_S, TOKEN_S, linear_cost_model
from tests.engine.fake_core import FakeCore
from tests.engine.fake_runner import continuation


def core_of(config: SchedulerConfig, n_blocks: int, block_size: int, **options: object) -> FakeCore:
    pool = BlockPool(n_blocks, block_size, prefix_cache=bool(options.pop("prefix_cache", True)))
    core = FakeCore(config, pool, **options)
    core.forces = False
    return core


def test_a_prompt_that_can_never_fit_is_refused_when_it_arrives() -> None:
    core = core_of(SchedulerConfig(), 4, 4)
    with pytest.raises(RequestRefused, match="16 tokens and the window 16") as refusal:
        core.scheduler.add(Request("r", [0] * 16))
    assert refusal.value.code == "too_long"
    assert refusal.value.retry_after_s is None
    core.scheduler.add(Request("s", [0] * 15))


def test_a_full_queue_refuses_with_the_time_it_needs_to_drain() -> None:
    config = SchedulerConfig(token_budget=10, max_waiting_requests=8, max_waiting_tokens=20)
    core = core_of(config, 40, 4, cost_model=linear_cost_model())
    core.scheduler.add(Request("a", [0] * 15))
    with pytest.raises(RequestRefused, match="1 requests with 15 tokens are waiting") as refusal:
        core.scheduler.add(Request("b", [0] * 6))
    assert refusal.value.code == "overloaded"
    assert refusal.value.retry_after_s == pytest.approx(1.5 * (STEP_S + 10 * TOKEN_S), rel=0.02)


def test_what_would_still_wait_at_its_deadline_is_refused_with_the_time_until_it_would_not() -> None:
    core = core_of(SchedulerConfig(token_budget=10), 40, 4, cost_model=linear_cost_model())
    core.now = 100.0
    core.scheduler.add(Request("a", [0] * 30, deadline_s=100.001))  # nothing is before it: it may try
    queued_s = 3 * (STEP_S + 10 * TOKEN_S)
    with pytest.raises(RequestRefused, match=r"the deadline is in 0\.0 s") as refusal:
        core.scheduler.add(Request("b", [0], deadline_s=100.0 + queued_s - 0.02))
    assert refusal.value.code == "overloaded"
    assert refusal.value.retry_after_s == pytest.approx(0.02, abs=0.002)
    core.scheduler.add(Request("c", [0], deadline_s=100.0 + queued_s + 0.005))
    core.scheduler.add(Request("d", [0], deadline_s=100.001, priority=1))  # goes before them all


def test_a_prompt_under_way_counts_as_work_that_comes_first() -> None:
    core = core_of(SchedulerConfig(token_budget=10), 40, 4, cost_model=linear_cost_model())
    core.submit([0] * 60, 1)
    core.step()
    with pytest.raises(RequestRefused, match="comes first"):
        core.scheduler.add(Request("b", [0], deadline_s=0.05))
    core.scheduler.add(Request("c", [0], deadline_s=0.15))


def test_a_long_prompt_slows_running_answers_down_by_the_stated_factor_and_no_more() -> None:
    model, config = linear_cost_model(), SchedulerConfig(token_budget=64, max_slowdown=1.6, min_chunk=2)
    core = core_of(config, 60, 4, cost_model=model)
    for _ in range(8):
        core.submit([0, 1], 40)
    core.step()
    core.submit([1] * 60, 1)
    chunks = []
    while (plan := core.step()) is not None and len(plan.rows) == 9:
        assert {row.n for row in plan.rows[:8]} == {1}
        assert model.seconds(model.step(plan.rows)) <= 1.6 * model.seconds(model.step(plan.rows[:8])) * 1.001
        chunks.append(plan.rows[8].n)
    assert sum(chunks) == 60
    assert set(chunks[:-1]) == {10}  # 18 ms alone, so 10.8 ms for the prompt


def test_prompts_that_came_before_the_answers_began_are_not_cut() -> None:
    """A burst: the first requests answer while the others, which arrived with them, still wait for their prompts."""
    config = SchedulerConfig(token_budget=40, max_slowdown=1.01, min_chunk=1)
    core = core_of(config, 60, 4, cost_model=linear_cost_model())
    first = core.submit([0] * 30, 40)
    burst = core.submit([1] * 30, 40)
    core.pass_time(1.0)
    core.step()
    core.live[first].request.timeline.first_token_s = core.now
    core.pass_time(1.0)
    late = core.submit([2] * 30, 40)
    plan = core.step()
    assert plan is not None
    assert {row.request_id: row.n for row in plan.rows} == {first: 1, burst: 20, late: 1}


def test_a_prompt_advances_by_its_least_chunk_however_much_that_costs() -> None:
    config = SchedulerConfig(token_budget=64, max_slowdown=1.001, min_chunk=5)
    core = core_of(config, 60, 4, cost_model=linear_cost_model())
    core.submit([0, 1], 40)
    core.step()
    core.submit([1] * 30, 1)
    plans = [core.step() for _ in range(5)]
    assert [plan.rows[1].n for plan in plans if plan] == [5] * 5


@given(
    seed=st.integers(0, 2**16),
    slowdown=st.floats(1.01, 3.0),
    chunk=st.integers(1, 6),
    n_blocks=st.integers(8, 40),
)
@settings(max_examples=60)
def test_under_any_load_steps_keep_to_their_limit_and_all_requests_end(
    seed: int, slowdown: float, chunk: int, n_blocks: int
) -> None:
    """13, with 10 to 12 as FakeCore checks them in every step."""
    model, draw = linear_cost_model(), random.Random(seed)
    config = SchedulerConfig(token_budget=64, max_rows=6, max_slowdown=slowdown, min_chunk=chunk)
    core = core_of(config, n_blocks, 4, cost_model=model)
    core.draw, core.forces = draw, True
    for index in range(150):
        if index < 80 and draw.random() < 0.3:
            prompt = [draw.randrange(2) for _ in range(draw.choice([1, 3, 12, 30]))]
            core.submit(prompt[: core.scheduler.window - 1], draw.randrange(1, 12), priority=draw.randrange(3))
        answering = {r.id for r in core.scheduler.requests() if r.tokens[r.n_prompt :] and r.computed >= r.n_prompt}
        preemptions = core.scheduler.counters.preemptions
        plan = core.step()
        core.pass_time(0.05)
        # A request that gave way in this step was still counted on when the prompts were cut.
        if plan is not None and answering and core.scheduler.counters.preemptions == preemptions:
            # A prompt's last token is a decode like any other.
            streams = [row for row in plan.rows if row.request_id in answering or row.n == row.n_logits == 1]
            chunks = [row for row in plan.rows if row not in streams]
            # Prompts under way advance by a token where the limit is reached.
            counted = [*streams, *(row for row in chunks if row.n > 1)]
            seconds, alone = model.seconds(model.step(counted)), model.seconds(model.step(streams))
            assert seconds <= slowdown * alone * 1.001 or sum(row.n for row in chunks) < chunk + len(chunks)
    core.drain()


def test_the_forced_tokens_of_an_answer_are_not_held_back_by_a_prompt() -> None:
    config = SchedulerConfig(token_budget=64, max_slowdown=1.2, min_chunk=1)
    core = core_of(config, 60, 4, cost_model=linear_cost_model())
    core.submit([0, 1], 40)
    core.step()
    answer = core.live["1"].request
    core.scheduler.extend(answer, continuation(answer.tokens, 12))
    core.submit([1] * 50, 1)
    plan = core.step()
    assert plan is not None
    assert [row.n for row in plan.rows] == [13, pytest.approx(4, abs=1)]  # 23 ms alone, so 4.6 ms for the prompt


def test_while_nothing_streams_a_prompt_gets_the_whole_budget() -> None:
    core = core_of(SchedulerConfig(token_budget=24), 60, 4, cost_model=linear_cost_model())
    core.submit([0] * 60, 1)
    core.submit([1] * 60, 1)
    assert [plan.n_tokens for _ in range(5) if (plan := core.step())] == [24] * 5


def test_beside_another_models_answers_a_prompt_keeps_to_a_step_of_bounded_time() -> None:
    config = SchedulerConfig(token_budget=64, max_shared_step_s=0.05)
    core = core_of(config, 60, 4, cost_model=linear_cost_model())
    core.submit([0] * 60, 1)
    core.scheduler.pace.shares_machine = True
    plan = core.step()
    assert plan is not None
    assert STEP_S + TOKEN_S * plan.n_tokens == pytest.approx(0.05, abs=2 * TOKEN_S)


def test_a_prompt_of_higher_rank_begins_before_a_long_one_goes_on() -> None:
    core = core_of(SchedulerConfig(token_budget=8), 60, 4, cost_model=linear_cost_model())
    core.submit([0] * 50, 1)
    core.step()
    urgent = core.submit([1] * 20, 1, priority=1)
    plans = [core.step() for _ in range(3)]
    assert [[row.n for row in plan.rows if row.request_id == urgent] for plan in plans if plan] == [[7], [7], [6]]
    assert all(plan is not None and len(plan.rows) == 2 for plan in plans)
    while core.step():
        pass
    assert core.happened["finished"] == 2


@given(
    gap=st.integers(1, 8),
    budget=st.integers(4, 16),
    rows=st.integers(1, 4),
    chunk=st.integers(1, 4),
    seconds=st.floats(0.005, 0.2),
)
@settings(max_examples=40)
def test_nothing_that_arrives_after_the_head_start_of_its_priority_is_served_first(
    gap: int, budget: int, rows: int, chunk: int, seconds: float
) -> None:
    """12: a flood of urgent requests delays an ordinary one by its head start and what ran then, not for ever."""
    config = SchedulerConfig(token_budget=budget, max_rows=rows, min_chunk=chunk, priority_s=0.25)
    core = core_of(config, 24, 4, cost_model=linear_cost_model())
    for _ in range(rows + 1):
        core.submit([0] * 12, 6, priority=gap)
    waits = core.submit([1] * 10, 2)
    head_start_s, n_steps = 0.25 * gap, 0
    while core.live[waits].request.status is RequestStatus.WAITING:
        if core.scheduler.n_waiting < 4:
            core.submit([0] * 12, 6, priority=gap)
        core.step()
        core.pass_time(seconds)
        n_steps += core.now > head_start_s
        # At most 5 were before it when the head start ended, beside those that ran; each takes 12 + 6 steps or fewer.
        assert n_steps <= (5 + rows) * 18, "it starves"


def test_a_prompt_above_the_queue_limit_is_taken_by_an_empty_queue() -> None:
    core = core_of(SchedulerConfig(max_waiting_tokens=4), 40, 4)
    core.submit([0] * 20, 2)
    while core.step():
        pass
    assert core.happened["finished"] == 1


def test_a_decode_advances_in_every_step_beside_a_long_prompt() -> None:
    core = core_of(SchedulerConfig(token_budget=8), 40, 4)
    core.submit([0, 1], 30)
    core.step()
    core.submit([1] * 50, 1)
    rows = [core.step() for _ in range(6)]
    assert all(plan is not None and plan.rows[0].request_id == "1" for plan in rows)
    assert [plan.n_tokens for plan in rows if plan][1:] == [8] * 5


def test_a_long_draft_leaves_every_later_request_its_token() -> None:
    core = core_of(SchedulerConfig(token_budget=4), 40, 4)
    for _ in range(3):
        core.submit([0, 1], 9)
        core.step()
    first = core.live["1"].request
    first.tail = continuation(first.tokens, 3)
    plan = core.step()
    assert plan is not None
    assert [row.request_id for row in plan.rows] == ["1", "2", "3"]
    assert plan.resumed == ()


def test_a_draft_is_cut_to_the_budget() -> None:
    core = core_of(SchedulerConfig(token_budget=4), 40, 4)
    core.submit([0, 1], 9)
    core.step()
    request = core.live["1"].request
    request.tail = continuation(request.tokens, 7)
    plan = core.step()
    assert plan is not None
    assert [(row.n, row.n_logits) for row in plan.rows] == [(4, 4)]


def test_the_lowest_priority_and_then_the_newest_is_preempted_first() -> None:
    core = core_of(SchedulerConfig(max_rows=4), 14, 2, prefix_cache=False)
    for priority in (0, 1, 0):
        core.submit([0, 1, 0], 14, priority=priority)
        core.step()
    order: list[str] = []
    while core.step():
        order.extend(key for key, live in core.live.items() if live.request.timeline.preemptions and key not in order)
    assert order[0] == "3"
    assert "2" not in order
    assert core.happened["finished"] == 3


def test_waiting_requests_are_admitted_in_order_and_never_overtaken() -> None:
    core = core_of(SchedulerConfig(max_rows=2, token_budget=64), 16, 4, prefix_cache=False)
    admitted: list[str] = []
    for length in (30, 25, 1, 1):
        core.submit([0] * length, 3)
    while core.step():
        ready = [
            r.id for r in core.scheduler.requests() if r.status is not RequestStatus.WAITING and r.id not in admitted
        ]
        admitted.extend(ready)
    assert admitted == sorted(admitted)


def test_a_resumed_request_computes_none_of_its_prompt_again() -> None:
    core = core_of(SchedulerConfig(), 20, 4)
    core.submit([0, 1, 1, 0, 1], 1, holds=True)
    assert core.step() is not None
    computed = core.scheduler.counters.prompt_tokens_computed
    core.resume("1", 0)
    plan = core.step()
    assert plan is not None
    assert (plan.rows, plan.resumed) == ((), ("1",))
    assert core.scheduler.counters.prompt_tokens_computed == computed == 5
    assert core.scheduler.counters.tokens_recomputed == 0
    assert core.happened["finished"] == 1


def test_the_oldest_held_request_gives_way_and_is_recomputed_unseen() -> None:
    core = core_of(SchedulerConfig(), 4, 4, prefix_cache=False)
    core.submit([0, 1, 1, 0, 1], 3, holds=True)
    core.step()
    core.submit([1, 1, 0], 3, holds=True)
    core.step()
    core.submit([1, 0, 0, 1, 1], 1)
    core.step()
    assert core.scheduler.counters.holds_released == 1
    for request_id in core.held():
        core.resume(request_id, 0)
    while core.step():
        pass
    assert core.happened["finished"] == 3
    assert core.scheduler.counters.tokens_recomputed == 5


def test_deadlines_are_reported_once_and_only_for_live_requests() -> None:
    core = core_of(SchedulerConfig(), 20, 4)
    requests = [Request(str(i), [0, 1], deadline_s=float(i)) for i in (1, 2, 3)]
    for request in requests:
        core.scheduler.add(request)
    core.scheduler.finish(requests[0])
    assert core.scheduler.earliest_deadline() == 2.0
    core.scheduler.set_deadline(requests[1], 2.0)
    core.now = 2.5
    assert core.scheduler.expired() == [requests[1]]
    assert core.scheduler.expired() == []


def test_a_request_resumed_with_less_priority_waits_with_that_priority() -> None:
    core = core_of(SchedulerConfig(max_rows=1), 20, 4)
    core.submit([0, 1], 3)
    core.step()
    core.submit([1, 0], 3, holds=True)
    core.submit([1, 1], 3)
    core.resume("2", priority=-1)
    order: list[str] = []
    while plan := core.step():
        order += [row.request_id for row in plan.rows if row.request_id not in order]
    assert order == ["1", "3", "2"]


def test_the_most_pressing_request_has_the_earliest_deadline_of_those_that_need_steps() -> None:
    core = core_of(SchedulerConfig(max_rows=1), 20, 4)
    assert core.scheduler.most_pressing() is None
    held = core.submit([0, 1], 3, holds=True, deadline_s=1.0)
    core.step()
    assert core.live[held].request.status is RequestStatus.HELD
    later, sooner = core.submit([0, 1], 9, deadline_s=4.0), core.submit([1, 1], 3, deadline_s=3.0)
    core.step()
    assert core.scheduler.most_pressing() is core.live[sooner].request
    core.scheduler.set_deadline(core.live[sooner].request, 5.0)
    assert core.scheduler.most_pressing() is core.live[later].request
    core.resume(held, deadline_s=2.0)
    assert core.scheduler.most_pressing() is core.live[held].request


def test_what_others_compute_while_a_request_is_preempted_counts_as_cached() -> None:
    core = core_of(SchedulerConfig(max_rows=1, prefill_cap=3), 40, 1)
    prompt = [0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0]
    core.submit(prompt, 1)
    for _ in range(2):
        core.step()
    first = core.live["1"].request
    core.scheduler._preempt(first)
    core.submit(prompt, 1, priority=9)
    while core.step():
        pass
    assert core.happened["finished"] == 2
    assert (first.timeline.cached_tokens, first.timeline.computed_tokens) == (5, 7)


def test_a_plan_must_be_committed_before_the_next_one() -> None:
    core = core_of(SchedulerConfig(), 20, 4)
    core.submit([0, 1], 2)
    plan = core.scheduler.schedule()
    assert plan is not None
    with pytest.raises(RuntimeError, match="commit it before"):
        core.scheduler.schedule()
    with pytest.raises(RuntimeError, match="not the one in flight"):
        core.scheduler.commit(StepResult(plan.step_id + 1))


def test_no_tail_takes_blocks_that_anybody_else_needs() -> None:
    """Whoever is preempted beside tails would have been without them; and they are cut where the budget is short."""
    n_compared = n_preempted = n_dropped = 0
    for seed in range(60):
        draw = random.Random(seed)
        config = SchedulerConfig(token_budget=draw.randrange(10, 40), max_rows=5, max_waiting_requests=9)
        core = FakeCore(config, BlockPool(draw.randrange(8, 20), draw.randrange(1, 5)), draw)
        for _ in range(60):
            if len(core.live) < 5:
                core.submit([draw.randrange(2) for _ in range(draw.randrange(1, 16))], draw.randrange(1, 25))
            core.propose()
            plain = copy.deepcopy(core.scheduler)
            tails = {request.id: list(request.tail) for request in plain.requests() if request.tail}
            for request in plain.requests():
                request.clear_tail()
            plain.schedule()
            plan = core.step()
            assert core.scheduler.counters.preemptions == plain.counters.preemptions
            for row in plan.rows if plan is not None else ():
                if row.request_id in tails:
                    n_compared += 1
                    n_dropped += row.n_logits < 1 + len(tails[row.request_id])
                    assert list(row.tokens[row.n - row.n_logits + 1 :]) == tails[row.request_id][: row.n_logits - 1]
        n_preempted += core.scheduler.counters.preemptions
    assert min(n_compared, n_preempted, n_dropped) > 50


def test_a_tail_is_cut_to_the_blocks_that_are_free() -> None:
    scheduler = Scheduler(SchedulerConfig(), BlockPool(3, 4), max_model_len=64)
    request = Request("r", [1] * 6)
    scheduler.add(request)
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.commit(StepResult(plan.step_id, {"r": Accepted((2,))}))
    request.tail, request.tail_parents = [3] * 9, [-1, 0, 1, -1, 3, 4, 2, 6, 7]
    plan = scheduler.schedule()
    assert plan is not None
    [row] = plan.rows
    assert row.tokens == (2, 3, 3, 3, 3, 3), "12 places, of which 6 were computed"
    assert row.parents == (-1, 0, 1, -1, 3)


def test_drafts_leave_half_of_a_step_to_prompts_that_wait() -> None:
    scheduler = Scheduler(SchedulerConfig(token_budget=16, max_rows=8), BlockPool(64, 4), max_model_len=256)
    for name in "ab":
        scheduler.add(Request(name, [1] * 3))
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.commit(StepResult(plan.step_id, {name: Accepted((2,)) for name in "ab"}))

    def drafted() -> list[int]:
        for request in scheduler.requests():
            if request.id in "ab":
                request.tail = [3] * 12
        plan = scheduler.schedule()
        assert plan is not None
        scheduler.commit(
            StepResult(plan.step_id, {row.request_id: Accepted((2,)) for row in plan.rows if row.n_logits})
        )
        return [row.n for row in plan.rows]

    assert sum(drafted()) == 16
    scheduler.add(Request("prompt", [1] * 40))
    *tails, prompt = drafted()
    assert prompt >= 8
    assert sum(tails) == 8
