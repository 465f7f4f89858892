"""The router's report: right where the truth is known, and silent where it is not."""

import json
import math

import msgspec
import numpy as np
import pytest

from gateway.reports.curve import curve_of
from gateway.reports.knowledge import ExploredKnowledge, PairKnowledge, knowledge_of
from gateway.reports.other_policies import standard_candidates
from gateway.reports.reliability import reliability
from router_model.off_policy import Unidentifiable
from tests.gateway.report_worlds import EPSILON, made, world


@pytest.mark.parametrize("with_pairs", [True, False])
def test_the_points_of_the_curve_lie_where_the_world_has_them(with_pairs: bool) -> None:
    known = knowledge_of(world(4_000, 0, with_pairs=with_pairs), np.random.default_rng(0))
    assert isinstance(known, PairKnowledge if with_pairs else ExploredKnowledge)
    curve = curve_of(known)
    assert curve.all_small is not None
    assert curve.all_large is not None
    assert curve.current is not None
    assert curve.random is not None
    # Expectations over difficulty: 1/2 and 7/8; the router takes difficulties above 4/15, but for the explored ones.
    for point, quality, cost in ((curve.all_small, 0.5, 1.0), (curve.all_large, 0.875, 6.0)):
        assert point.lower - 0.01 <= quality <= point.upper + 0.01
        assert point.cost_usd == pytest.approx(cost, rel=0.1)
    share = (1 - EPSILON) * 11 / 15 + EPSILON * 4 / 15
    assert curve.current.large_share == pytest.approx(share, abs=0.03)
    assert curve.current.quality > curve.random.quality
    assert [point.large_share for point in curve.points] == pytest.approx([i / 10 for i in range(11)], abs=0.01)
    assert [point.cost_usd for point in curve.points] == sorted(point.cost_usd for point in curve.points)
    assert (curve.oracle is not None) is with_pairs
    if curve.oracle is not None:
        assert curve.oracle.quality >= max(point.quality for point in curve.points)


def test_an_escalated_answer_costs_all_small_what_the_small_model_said_and_the_router_both() -> None:
    pairs = world(1_000, 4, with_pairs=True)
    again = [
        msgspec.structs.replace(
            one,
            escalated=True,
            model_served="large",
            cost_usd=one.cost_usd + one.cost_if_large_usd,
            cost_discarded_usd=one.cost_usd,
        )
        if one.action == "small"
        else one
        for one in pairs
    ]
    before, after = (curve_of(knowledge_of(facts, np.random.default_rng(0))) for facts in (pairs, again))
    assert after.all_small == before.all_small
    assert after.all_large == before.all_large
    assert before.current is not None
    assert after.current is not None
    assert after.current.cost_usd > before.current.cost_usd + 1


def test_savings_stand_beside_quality_against_both_references() -> None:
    report = made(world(3_000, 1, with_pairs=True))
    large, random = report.comparisons
    assert (large.against, random.against) == ("all_large", "matched_random")
    assert large.saving.share is not None
    assert large.saving.share > 0.1
    assert large.quality_difference is not None
    assert large.quality_difference.upper < 0
    # Against random at the same share nothing is saved in this world, where size and difficulty know nothing of each
    # other; but it is better.
    assert random.saving.share == pytest.approx(0, abs=0.03)
    assert random.quality_difference is not None
    assert random.quality_difference.lower > 0
    assert {large.quality_source, random.quality_source} == {"shadow_pairs"}


def test_without_grades_savings_say_that_quality_is_unknown_and_how_to_know_it() -> None:
    report = made([msgspec.structs.replace(one, grades={}) for one in world(300, 2)])
    for one in report.comparisons:
        assert one.quality_difference is None
        assert "/v1/router/outcomes" in one.quality_note
    assert report.curve.source is None
    assert report.curve.note
    assert all(policy.refused for policy in report.other_policies.policies)


def test_too_little_exploration_is_refused_in_words() -> None:
    with pytest.raises(Unidentifiable, match="effective sample size"):
        knowledge_of(world(150, 3), np.random.default_rng(0))


def test_honest_probabilities_are_found_reliable() -> None:
    small, large = reliability(world(5_000, 9, with_pairs=True))
    for one in (small, large):
        assert one.n == 5_000
        assert one.ece is not None
        assert one.ece < 0.04
        assert sum(each.n for each in one.bins) == one.n
        assert all(abs(each.predicted - each.observed) < 5 * each.error + 0.01 for each in one.bins)
    assert reliability([])[0].ece is None


def test_a_report_is_json_of_its_own_schema() -> None:
    report = made(world(2_500, 11))
    read = json.loads(msgspec.json.encode(report))
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in _leaves(read))
    for part in ("curve", "comparisons", "mix", "escalations", "reliability", "thresholds", "exploration", "speed"):
        assert part in read
    assert read["other_policies"]["policies"][0]["policy"] == "as logged"
    assert set(read["other_policies"]["policies"][1]) >= {"policy", "dr", "snips", "ips", "ess", "refused"}
    assert len(standard_candidates(world(10, 0))) == 7


def _leaves(node: object) -> list[object]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in _leaves(value)]
    return [leaf for value in node for leaf in _leaves(value)] if isinstance(node, list) else [node]
