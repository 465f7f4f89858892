"""Steps that are planned before the last one is committed, over the runner that reads back what it wrote."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.blocks import BlockPool
from engine.config import SchedulerConfig
from engine.plan import Accepted, StepPlan, StepResult
from engine.request import Request
from engine.scheduler import Scheduler
from tests.engine.fake_runner import FakeRunner, continuation


def scheduler_of(*requests: Request, n_blocks: int = 60, rows: int = 8, budget: int = 64) -> Scheduler:
    pool = BlockPool(n_blocks, 4)
    scheduler = Scheduler(SchedulerConfig(token_budget=budget, max_rows=rows), pool, max_model_len=100)
    for request in requests:
        scheduler.add(request)
    return scheduler


def result_of(plan: StepPlan, drawn: dict[str, int]) -> StepResult:
    return StepResult(plan.step_id, {name: Accepted((token,)) for name, token in drawn.items()})


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    rows=st.integers(1, 6),
    n_blocks=st.integers(25, 80),
    budget=st.integers(6, 40),
    choices=st.lists(st.booleans(), min_size=1, max_size=40),
)
def test_requests_get_the_same_tokens_whether_or_not_steps_run_ahead(
    lengths: list[int], rows: int, n_blocks: int, budget: int, choices: list[bool]
) -> None:
    requests = [Request(str(i), [1 + i % 3] * n) for i, n in enumerate(lengths)]
    scheduler = scheduler_of(*requests, n_blocks=n_blocks, rows=rows, budget=budget)
    runner, flight = FakeRunner(n_blocks, 4), None
    for runs_ahead in choices:
        plan, drawn = flight or (scheduler.schedule(), {})
        if plan is None:
            break
        if flight is None:
            drawn = {name: tokens[-1] for name, tokens in runner.run(plan).items()}
        order, flight = list(drawn), None
        ahead = scheduler.schedule_ahead({name: i for i, name in enumerate(order)}) if runs_ahead else None
        if ahead is not None:
            known = [replace(row, tokens=(drawn[order[-1 - row.tokens[0]]],)) for row in ahead.rows]
            answer = runner.run(replace(ahead, rows=tuple(known)))
            flight = ahead, {name: tokens[-1] for name, tokens in answer.items()}
        scheduler.commit(result_of(plan, drawn))
        scheduler.check_integrity()
    for request, n in zip(requests, lengths, strict=True):
        assert request.tokens[n:] == continuation(request.tokens[:n], len(request.tokens) - n)


def test_a_step_ahead_is_the_one_that_would_have_followed() -> None:
    ahead, plain = (scheduler_of(Request("a", [1] * 7), Request("b", [2] * 3)) for _ in range(2))
    first = ahead.schedule()
    assert first == plain.schedule()
    assert first is not None
    early = ahead.schedule_ahead({"a": 0, "b": 1})
    plain.commit(result_of(first, {"a": 7, "b": 9}))
    later = plain.schedule()
    assert early is not None
    assert later is not None
    assert [row.tokens for row in early.rows] == [(-1,), (-2,)]
    assert [replace(row, tokens=()) for row in early.rows] == [replace(row, tokens=()) for row in later.rows]


def test_nothing_is_launched_ahead_of_a_request_that_could_be_admitted() -> None:
    scheduler = scheduler_of(Request("a", [1]), rows=2)
    assert scheduler.schedule() is not None
    scheduler.add(Request("b", [2]))
    assert scheduler.schedule_ahead({"a": 0}) is None
    full = scheduler_of(Request("a", [1]), Request("b", [2]), rows=1)
    assert full.schedule() is not None
    assert full.schedule_ahead({"a": 0}) is not None


def test_nobody_is_preempted_for_a_step_ahead() -> None:
    scheduler = scheduler_of(Request("a", [1] * 4), Request("b", [2] * 4), n_blocks=3)
    assert scheduler.schedule() is not None
    before = scheduler.pool.n_free
    assert scheduler.schedule_ahead({"a": 0, "b": 1}) is None
    assert scheduler.pool.n_free == before
    assert scheduler.schedule_ahead({"a": 0}) is not None


def test_a_request_that_ends_under_a_step_ahead_keeps_its_blocks_until_that_is_committed() -> None:
    request = Request("a", [1] * 6)
    scheduler = scheduler_of(request)
    first = scheduler.schedule()
    second = scheduler.schedule_ahead({"a": 0})
    assert first is not None
    assert second is not None
    with pytest.raises(RuntimeError, match="not committed"):
        scheduler.schedule()
    with pytest.raises(RuntimeError, match="in their order"):
        scheduler.commit(StepResult(second.step_id))
    scheduler.commit(result_of(first, {"a": 5}))
    scheduler.finish(request)
    assert scheduler.pool.n_used == 2
    scheduler.commit(StepResult(second.step_id))
    assert scheduler.pool.n_used == 0
    assert request.tokens == [1] * 6 + [5]
