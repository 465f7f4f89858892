"""Fair shares of one machine between models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arbiter import Arbiter, Claim


@given(small_s=st.floats(0.001, 1), large_s=st.floats(0.001, 1), n=st.integers(20, 200))
def test_models_that_always_have_work_get_equal_time(small_s: float, large_s: float, n: int) -> None:
    arbiter, cost, served = Arbiter(), {"small": small_s, "large": large_s}, {"small": 0.0, "large": 0.0}
    for _ in range(n):
        name = arbiter.pick([Claim("small"), Claim("large")])
        served[name] += cost[name]
        arbiter.charge(name, cost[name])
        assert abs(served["small"] - served["large"]) <= max(cost.values()) + 1e-9


@given(idle=st.integers(1, 50))
def test_a_model_saves_up_no_credit_while_it_is_idle(idle: int) -> None:
    arbiter = Arbiter()
    for _ in range(idle):
        arbiter.charge(arbiter.pick([Claim("large")]), 1.0)
    picks = []
    for _ in range(10):
        picks.append(arbiter.pick([Claim("small"), Claim("large")]))
        arbiter.charge(picks[-1], 1.0)
    assert 4 <= picks.count("small") <= 6


@given(small=st.lists(st.floats(0.001, 0.05), min_size=1, max_size=20), large_s=st.just(0.1), n=st.integers(50, 300))
def test_beside_a_saturated_model_the_other_waits_for_at_most_one_of_its_steps(
    small: list[float], large_s: float, n: int
) -> None:
    arbiter, now, last, longest = Arbiter(), 0.0, None, 0.0
    for index in range(n):
        name = arbiter.pick([Claim("large"), Claim("small")])
        seconds = large_s if name == "large" else small[index % len(small)]
        now += seconds
        arbiter.charge(name, seconds)
        if name == "small":
            longest = max(longest, now - (now if last is None else last))
            last = now
    assert longest <= 1.5 * large_s + 1e-9


@given(late=st.lists(st.booleans(), min_size=1, max_size=30), step_s=st.floats(0.001, 0.1))
def test_late_requests_hold_up_another_model_for_a_bounded_time(late: list[bool], step_s: float) -> None:
    arbiter, waited, longest = Arbiter(max_lead_s=0.25), 0.0, 0.0
    for index in range(400):
        slack_s = -1.0 if late[index % len(late)] else None
        name = arbiter.pick([Claim("late", slack_s=slack_s), Claim("other")])
        waited = 0.0 if name == "other" else waited + step_s
        longest = max(longest, waited)
        arbiter.charge(name, step_s)
    assert longest <= 0.25 + 2 * step_s + 1e-9


def test_a_pressing_deadline_goes_first() -> None:
    arbiter = Arbiter(urgent_s=0.5)
    arbiter.charge("late", 0.2)
    assert arbiter.pick([Claim("other"), Claim("late", slack_s=0.1)]) == "late"
    assert arbiter.pick([Claim("other"), Claim("late", slack_s=5.0)]) == "other"


def test_a_model_whose_requests_are_all_late_cannot_shut_the_other_out() -> None:
    arbiter, served = Arbiter(max_lead_s=1.0), {"late": 0.0, "other": 0.0}
    for _ in range(200):
        name = arbiter.pick([Claim("late", slack_s=-1.0), Claim("other")])
        arbiter.charge(name, 0.1)
        served[name] += 0.1
    assert served["late"] - served["other"] <= 1.2


def test_somebody_must_have_work() -> None:
    with pytest.raises(ValueError, match="no model has work"):
        Arbiter().pick([])
