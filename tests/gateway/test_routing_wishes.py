"""What the policy is asked for a request: the second chance that a promise may count on."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.routing.ask import CASCADES
from gateway.routing.catalogue import Target
from gateway.routing.wishes import options_of
from gateway.settings import RoutingSettings
from router_model.options import Cascade
from tests.gateway.test_routing_eligibility import question


@pytest.mark.parametrize("served", CASCADES)
def test_a_whole_answer_has_the_servers_cascade_or_the_lower_one_that_was_asked_for(served: Any) -> None:
    settings = RoutingSettings(cascade=served)
    assert options_of(question(Target.AUTO), settings).cascade is Cascade(served)
    for asked in CASCADES[: CASCADES.index(served) + 1]:
        assert options_of(question(Target.AUTO, cascade=asked), settings).cascade is Cascade(asked)


@pytest.mark.parametrize("served", CASCADES)
@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"n": 2}, {}),
        ({"is_streamed": True}, {}),
        ({"in_tool_loop": True}, {}),
        ({}, {"max_cost_usd": 1.0}),
        ({}, {"max_ttft_ms": 500.0}),
    ],
)
def test_where_a_second_answer_is_not_certain_no_promise_counts_on_one(
    served: Any, changes: dict[str, Any], asked: dict[str, Any]
) -> None:
    found = options_of(replace(question(Target.AUTO, **asked), **changes), RoutingSettings(cascade=served))
    assert found.cascade is Cascade.OFF
