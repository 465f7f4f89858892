"""An engine that dies on command: what its requests, its suspects and its restarts come to."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Cancel, Prepare, Release
from engine.request import EngineDied, FinishReason, RequestRefused
from engine.supervision import RestartPolicy
from engine.transport import LoadFailed
from tests.engine.mortal import Mortal, collect, finished, prepared, settle, started


async def test_requests_in_flight_get_one_clear_error_and_the_next_wait_for_the_restart() -> None:
    transport, client = await started()
    first = asyncio.create_task(collect(client, [1]))
    await settle()
    transport.die()
    second = asyncio.create_task(collect(client, [2]))
    with pytest.raises(EngineDied, match="send it again"):
        await first
    await settle()
    assert (client.health.restarts, client.health.state) == (1, "up")
    transport.answer(finished(transport.submits()[-1].id))
    assert (await second).reason is FinishReason.STOP
    assert not any(isinstance(command, Cancel) for command in transport.sent)
    assert (client.n_calls, client.n_held) == (0, 0)
    await client.close()


async def test_the_same_content_may_not_kill_the_engine_a_third_time() -> None:
    transport, client = await started()
    for _ in range(2):
        killer = asyncio.create_task(collect(client, [6, 6, 6]))
        await settle()
        transport.die()
        with pytest.raises(EngineDied):
            await killer
        await settle()
    with pytest.raises(RequestRefused, match="died twice") as refusal:
        await collect(client, [6, 6, 6])
    assert refusal.value.code == "poisoned"
    await answered(transport, asyncio.create_task(collect(client, [7])))
    await client.close()


async def answered(transport: Mortal, task: "asyncio.Task[object]") -> None:
    """Let the engine finish what was submitted last, as which `task` must end."""
    await settle()
    transport.answer(finished(transport.submits()[-1].id))
    await task


async def test_only_whom_the_engine_worked_for_is_suspected() -> None:
    transport, client = await started()
    for _ in range(2):
        tasks = [asyncio.create_task(collect(client, [token])) for token in (1, 2, 3)]
        await settle()
        transport.die(next(submit.id for submit in reversed(transport.submits()) if submit.tokens == [2]))
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, EngineDied), "all lose their answer, whoever did it"
        await settle()
    with pytest.raises(RequestRefused, match="died twice"):
        await collect(client, [2])
    for innocent in (1, 3):
        await answered(transport, asyncio.create_task(collect(client, [innocent])))
    await client.close()


async def test_asking_for_stats_is_never_suspected() -> None:
    transport, client = await started()
    for _ in range(3):
        asking = asyncio.create_task(client.stats())
        await settle()
        transport.die()
        with pytest.raises(EngineDied):
            await asking
        await settle()
    await client.close()


async def test_a_handle_whose_engine_died_is_submitted_as_its_tokens() -> None:
    transport, client = await started()
    prepare = asyncio.create_task(client.prepare("m", [4, 5], salt="t"))
    await settle()
    command = transport.sent[-1]
    assert isinstance(command, Prepare)
    transport.answer(prepared(command.id))
    handle = (await prepare).handle
    assert client.n_held == 1
    transport.die()
    await settle()
    task = asyncio.create_task(collect(client, handle=handle))
    await settle()
    submitted = transport.submits()[-1]
    assert (submitted.handle, submitted.tokens, submitted.salt) == (None, [4, 5], "t")
    transport.answer(finished(submitted.id))
    await task
    assert (client.n_calls, client.n_held) == (0, 0)
    await client.close()


async def test_a_prefill_that_nobody_waits_for_is_released() -> None:
    transport, client = await started()
    transport.answer(prepared("late"))
    assert transport.sent == [Release("late")]
    await client.close()


@pytest.mark.parametrize("fault", [EngineDied("again"), OSError("no memory"), RuntimeError("a surprise")])
async def test_restarts_are_tried_until_one_succeeds(fault: Exception) -> None:
    transport, client = await started()
    transport.opens = [fault, EngineDied("and again")]
    transport.die()
    await asyncio.sleep(0.05)
    assert (transport.n_opened, client.health.state) == (4, "up")
    await client.close()


async def test_while_it_does_not_start_requests_are_refused_at_once_and_the_reason_is_known() -> None:
    transport, client = await started(RestartPolicy(first_s=0.01, max_s=0.08))
    transport.opens = [LoadFailed("the folder is gone")] * 4
    waiting = asyncio.create_task(client.stats())
    transport.die()
    waited = asyncio.create_task(client.stats())
    for task in (waiting, waited):
        with pytest.raises((EngineDied, RequestRefused)):
            await task
    with pytest.raises(RequestRefused) as refusal:
        await client.stats()
    assert refusal.value.code == "engine_unavailable"
    assert refusal.value.retry_after_s
    health = client.health
    assert health.state == "unavailable"
    assert health.last_death is not None
    assert (health.last_death.cause, health.last_death.detail) == ("load_failed", "the folder is gone")
    for _ in range(1000):
        if client.health.state == "up":
            break
        await asyncio.sleep(0.01)
    assert client.health.state == "up", "the cause was mended, and the next try succeeded"
    assert client.health.restarts == 1
    await client.close()


@given(
    st.builds(RestartPolicy, first_s=st.floats(0.001, 1), max_s=st.floats(1, 100)),
    st.integers(1, 10**6),
)
def test_pauses_double_up_to_their_limit_however_often_it_dies(policy: RestartPolicy, deaths: int) -> None:
    assert policy.pause_s(1) == policy.first_s
    assert policy.pause_s(deaths) <= policy.pause_s(deaths + 1) <= policy.max_s
    assert policy.pause_s(deaths + 1) in (2 * policy.pause_s(deaths), policy.max_s)


async def test_a_crash_loop_slows_down() -> None:
    transport, client = await started(RestartPolicy(first_s=0.01, max_s=60.0))
    transport.opens = [EngineDied("at once")] * 1000
    transport.die()
    await asyncio.sleep(0.4)
    assert 2 <= transport.n_opened <= 7  # the first start, then after 0.01, 0.03, 0.07, 0.15 and 0.31 s
    assert client.health.state == "unavailable"
    await client.close()
    assert client.health.state == "down"


async def test_nobody_waits_for_a_restart_longer_than_allowed() -> None:
    transport, client = await started(RestartPolicy(first_s=60.0, max_s=60.0, wait_s=0.01))
    transport.die()
    with pytest.raises(RequestRefused) as refusal:
        await client.stats()
    assert refusal.value.code == "engine_restarting"
    assert refusal.value.retry_after_s
    await client.close()


async def test_a_close_during_a_restart_ends_it() -> None:
    transport, client = await started(RestartPolicy(first_s=60.0, max_s=60.0))
    transport.die()
    waiting = asyncio.create_task(client.stats())
    await settle()
    await client.close()
    with pytest.raises(EngineDied, match="closed"):
        await waiting
    assert transport.n_opened == 1
