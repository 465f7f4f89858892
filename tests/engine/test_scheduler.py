"""The scheduler by example: who goes first, what is refused, who gives way (any history: test_scheduler_machine.py)."""

import pytest

from engine.blocks import BlockPool
from engine.config import SchedulerConfig
from engine.plan import StepResult
from engine.request import Request, RequestRefused, RequestStatus
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
    config = SchedulerConfig(max_waiting_requests=8, max_waiting_tokens=20)
    core = core_of(config, 40, 4, drain_s=lambda tokens: tokens / 10)
    core.scheduler.add(Request("a", [0] * 15))
    with pytest.raises(RequestRefused, match="1 requests with 15 tokens are waiting") as refusal:
        core.scheduler.add(Request("b", [0] * 6))
    assert (refusal.value.code, refusal.value.retry_after_s) == ("overloaded", 1.5)


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


def test_a_plan_must_be_committed_before_the_next_one() -> None:
    core = core_of(SchedulerConfig(), 20, 4)
    core.submit([0, 1], 2)
    plan = core.scheduler.schedule()
    assert plan is not None
    with pytest.raises(RuntimeError, match="commit it before"):
        core.scheduler.schedule()
    with pytest.raises(RuntimeError, match="not the one in flight"):
        core.scheduler.commit(StepResult(plan.step_id + 1))
