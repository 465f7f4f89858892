"""CPU time that is bounded from a reading some time ago."""

import time

import pytest

from engine.cpu_clock import CpuClock


def burn(seconds: float) -> None:
    """Use the processor for so long, by this thread's own clock."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("before_s", [0.0, 0.004, 0.02])
def test_a_bound_never_exceeds_what_was_spent_and_is_near_it(before_s: float) -> None:
    clock = CpuClock(stale_s=0.01)
    clock.moment()
    burn(before_s)
    moment = clock.moment()
    exact = time.thread_time()
    burn(0.03)
    found = clock.spent_since(moment)
    assert found <= time.thread_time() - exact + 0.001
    assert found >= 0.03 - 0.01 - 0.001


def test_waiting_is_not_spending() -> None:
    clock = CpuClock(stale_s=10.0)
    clock.moment()
    time.sleep(0.02)
    moment = clock.moment()
    time.sleep(0.03)
    assert clock.spent_since(moment) < 0.005


def test_an_anchor_is_read_anew_once_it_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, cpu, readings = [100.0], [5.0], [0]

    def thread_time() -> float:
        readings[0] += 1
        return cpu[0]

    monkeypatch.setattr(time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(time, "thread_time", thread_time)
    clock = CpuClock(stale_s=1.0)
    for _ in range(5):
        clock.moment()
        wall[0] += 0.15
    assert readings == [1]
    wall[0] += 1.0
    moment = clock.moment()
    assert readings == [2]
    wall[0], cpu[0] = wall[0] + 0.5, cpu[0] + 0.25
    assert clock.spent_since(moment) == 0.25
