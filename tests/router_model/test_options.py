import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.circumstances import Circumstances, Offer
from router_model.options import Action, Cascade, QualityScale, RouteOptions

ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(ANY)
def test_shares_are_taken_from_0_to_1_and_refused_outside(value: float) -> None:
    makes: list[Callable[[float], object]] = [
        lambda x: RouteOptions(quality=x),
        lambda x: RouteOptions(cost=x),
        lambda x: Circumstances(pressure=x),
    ]
    for make in makes:
        if 0 <= value <= 1:
            make(value)
        else:
            with pytest.raises(ValueError, match="use 0"):
                make(value)


@given(ANY)
def test_limits_are_finite_and_not_negative(value: float) -> None:
    makes: list[Callable[[float], object]] = [
        lambda x: RouteOptions(max_cost_usd=x),
        lambda x: RouteOptions(max_ttft_s=x),
    ]
    for make in makes:
        if math.isfinite(value) and value >= 0:
            make(value)
        else:
            with pytest.raises(ValueError, match="use a finite number"):
                make(value)


def test_a_scale_and_a_cascade_may_be_named_in_plain_text_but_must_be_one() -> None:
    assert RouteOptions(quality_scale="gap").quality_scale is QualityScale.GAP  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="absolute"):
        RouteOptions(quality_scale="absolute")  # type: ignore[arg-type]
    assert RouteOptions(cascade="validation").cascade is Cascade.VALIDATION  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="always"):
        RouteOptions(cascade="always")  # type: ignore[arg-type]


def test_nothing_known_means_equal_costs_and_no_load() -> None:
    nothing = Circumstances()
    assert not nothing.has_prices
    assert nothing.pressure == 0
    assert nothing.offer(Action.SMALL) == nothing.offer(Action.LARGE) == Offer()
    assert Circumstances(large=Offer(prompt_usd=1e-6)).has_prices


def test_the_other_action_is_the_other_one() -> None:
    assert [action.other for action in Action] == [Action.LARGE, Action.SMALL]
