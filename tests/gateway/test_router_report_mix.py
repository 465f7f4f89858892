"""What was chosen, and by which threshold: parts of the report that only count."""

import msgspec
import pytest

from gateway.reports.mix import exploration, mix, threshold_history
from gateway.reports.routing import EXPLICIT
from tests.gateway.report_worlds import fact, world


def test_every_view_of_the_mix_holds_every_request_once() -> None:
    rows = [*world(500, 6), fact(1, reason=EXPLICIT, route="other", key="someone")]
    for parts in msgspec.structs.astuple(mix(rows)):
        assert sum(part.requests for part in parts) == len(rows)
        assert sum(part.cost_usd for part in parts) == pytest.approx(sum(row.cost_usd for row in rows))
    assert {part.name: part.requests for part in mix(rows).by_key} == {"(none)": 500, "someone": 1}


def test_beyond_fifty_groups_the_rest_is_one_part() -> None:
    parts = mix([fact(i, route=f"route-{i}") for i in range(70)]).by_route
    assert len(parts) == 51
    assert (parts[-1].name, parts[-1].requests) == ("(others)", 20)


def test_the_threshold_history_counts_every_routed_request_that_had_a_threshold() -> None:
    rows = world(500, 7)
    history = threshold_history(rows)
    assert sum(one.requests for one in history) == 500
    assert {(one.target, round(one.threshold, 9)) for one in history} == {("auto", 0.2)}
    assert sum(one.requests * one.large_share for one in history) == pytest.approx(sum(r.went_large for r in rows))
    assert threshold_history([fact(wanted={"quality": 0.9}, threshold=0.1)])[0].target == "quality 0.9"


def test_a_threshold_is_that_of_the_promise_where_there_was_one() -> None:
    covered, beyond = fact(0, threshold=0.25), fact(1, threshold=-10.0, calibrated=False, action="large")
    (one,) = threshold_history([covered, beyond])
    assert (one.threshold, one.requests, one.calibrated_share, one.large_share) == (0.25, 2, 0.5, 0.5)
    (none,) = threshold_history([beyond])
    assert none.threshold == -10.0


def test_exploration_is_charged_what_it_cost_and_was_expected_to_lose() -> None:
    rows = world(2_000, 8)
    spent = exploration(rows)
    explored = [row for row in rows if row.explored]
    extra = sum((1 if row.went_large else -1) * 5 * (row.cost_if_large_usd / 6) for row in explored)
    lost = sum((-1 if row.went_large else 1) * ((row.p_large or 0) - (row.p_small or 0)) for row in explored)
    assert spent.explored == len(explored)
    assert spent.extra_cost_usd == pytest.approx(extra)
    assert spent.expected_score_lost == pytest.approx(lost / len(rows))
