"""What targets came to on rows: figures against their definitions, and statuses that say what happened."""

from dataclasses import replace

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.escalation import second_ranks
from router_model.evaluation import bootstrap
from router_model.features import Kind, extract_outcome
from router_model.model import Predictions
from router_model.options import Cascade, RouteOptions
from router_model.outcomes import Outcome
from router_model.promises import SHARES, Status, TargetKept, shares_kept, targets_kept
from router_model.serving import drift_reasons, planner_of, serve
from router_model.training import labels_of
from tests.router_model.worlds import make_outcomes


def predicted(artefact: RouterArtefact, outcomes: list[Outcome]) -> Predictions:
    return artefact.predict([extract_outcome(one, Kind.STATE) for one in outcomes])


def kept(artefact: RouterArtefact, outcomes: list[Outcome]) -> dict[str, TargetKept]:
    labels = labels_of(outcomes).scores
    groups = np.arange(len(outcomes))
    draws = bootstrap(groups, np.random.default_rng(0), 50)
    return targets_kept(artefact, predicted(artefact, outcomes), labels, [""] * len(outcomes), draws, groups=groups)


def test_figures_are_those_of_the_decisions(artefact: RouterArtefact) -> None:
    outcomes = make_outcomes(700, with_state=True, seed=11)
    labels, seen = labels_of(outcomes).scores, predicted(artefact, outcomes)
    found = kept(artefact, outcomes)
    assert set(found) == {"auto", "auto-quality", "auto-cost", "quality 0.9"}
    goes = serve(artefact, seen, RouteOptions(target="auto"), [""] * 700).fixed
    quality = np.where(goes, labels[:, 1], labels[:, 0]).mean()
    small, large = labels.mean(axis=0)
    one = found["auto"].fixed
    assert one.large_share.value == pytest.approx(goes.mean())
    assert one.quality.value == pytest.approx(quality)
    assert one.pgr.value == pytest.approx((quality - small) / (large - small))
    assert one.of_large.value == pytest.approx(quality / large)
    assert one.over_random.value == pytest.approx(quality - (small + goes.mean() * (large - small)))
    assert one.over_random.lower is not None
    assert one.over_random.lower > 0, "the router knows more than nothing in this world"


def test_second_chances_are_part_of_what_is_served_and_of_the_share_that_is_kept(artefact: RouterArtefact) -> None:
    outcomes = make_outcomes(700, with_state=True, seed=16)
    labels, seen = labels_of(outcomes).scores, predicted(artefact, outcomes)
    known, rng = artefact.evidence, np.random.default_rng(0)
    # Of each answer it shows in four cases of five whether it is right.
    sees = [known.scores[:, 0] == (rng.random(len(known.scores)) < 0.8), labels[:, 0] == (rng.random(700) < 0.8)]
    told = [np.where(one, 0.9, 0.4) for one in sees]
    failed = rng.random(700) < 0.05
    second = second_ranks(seen.p_large - told[1], failed)
    judging = replace(artefact, evidence=replace(known, right=told[0], failed=rng.random(len(told[0])) < 0.05))
    options = RouteOptions(quality=0.9, cascade=Cascade.CONFIDENCE)
    goes = serve(judging, seen, options, [""] * 700, second)
    threshold = planner_of(judging).plan(options).point.threshold
    assert threshold > planner_of(judging).plan(RouteOptions(quality=0.9)).point.threshold
    at_first = (seen.score >= threshold) | (seen.ood > 1)
    np.testing.assert_array_equal(goes.fixed, at_first | (second >= threshold))
    assert goes.fixed[failed].all()
    assert goes.fixed.sum() > at_first.sum() + 20
    draws = bootstrap(np.arange(700), np.random.default_rng(0), 50)
    found = targets_kept(judging, seen, labels, [""] * 700, draws, second, groups=np.arange(700))
    assert found["quality 0.9, second chance"].fixed.large_share.value == pytest.approx(goes.fixed.mean())
    assert found["quality 0.9, second chance"].promised >= 0.9
    plain = kept(judging, outcomes)
    assert plain == {name: one for name, one in found.items() if name in plain}, "the others have no second chance"
    share = RouteOptions(target="auto-cost", cascade=Cascade.CONFIDENCE)
    served = serve(judging, seen, share, [""] * 700, second).served
    assert served.mean() == pytest.approx(planner_of(judging).plan(share).point.share, abs=0.03)


def test_a_kept_promise_is_met_and_covered_in_domain(artefact: RouterArtefact) -> None:
    found = kept(artefact, make_outcomes(1_500, with_state=True, seed=12))
    for one in found.values():
        assert one.calibrated_share > 0.9
        assert one.status is Status.MET
    assert found["auto-quality"].promised_share > found["auto-cost"].promised_share


GAP_TARGETS = ("auto", "auto-quality", "auto-cost")


def scored(outcomes: list[Outcome], small: float | None, large: float | None) -> list[Outcome]:
    """The same requests with other scores; None is that of the other model."""
    return [
        replace(
            one,
            weak_score=one.strong_score if small is None else small,
            strong_score=one.weak_score if large is None else large,
        )
        for one in outcomes
    ]


def test_where_the_large_model_is_worse_no_part_of_a_gap_was_kept_or_missed(artefact: RouterArtefact) -> None:
    found = kept(artefact, scored(make_outcomes(700, with_state=True, seed=17), None, None))
    for name in GAP_TARGETS:
        assert found[name].status is Status.NOT_IDENTIFIABLE
        assert "the large model leads by -0." in (found[name].reason or "")
        assert found[name].served.pgr.value is None
    quality = found["quality 0.9"]
    assert (quality.status, quality.reason) == (Status.MET, None), "it is more than the large model's"


def test_where_both_models_are_always_right_a_part_of_quality_is_kept_and_none_of_the_gap(
    artefact: RouterArtefact,
) -> None:
    found = kept(artefact, scored(make_outcomes(300, with_state=True, seed=18), 1.0, 1.0))
    for name in GAP_TARGETS:
        assert found[name].status is Status.NOT_IDENTIFIABLE
        assert "leads by +0.000 [+0.000, +0.000]" in (found[name].reason or "")
    assert found["quality 0.9"].status is Status.MET


def test_where_the_large_model_is_never_right_there_is_no_part_of_its_quality(artefact: RouterArtefact) -> None:
    found = kept(artefact, scored(make_outcomes(300, with_state=True, seed=19), 0.0, 0.0))
    assert {one.status for one in found.values()} == {Status.NOT_IDENTIFIABLE}
    assert "scored 0 on all rows" in (found["quality 0.9"].reason or "")


@pytest.mark.parametrize(("n", "n_groups"), [(1, 1), (400, 1), (19, 19)])
def test_few_groups_tell_of_no_target_however_many_rows_they_have(
    artefact: RouterArtefact, n: int, n_groups: int
) -> None:
    outcomes = make_outcomes(n, with_state=True, seed=20)
    labels, groups = labels_of(outcomes).scores, np.arange(n) % n_groups
    draws = bootstrap(groups, np.random.default_rng(0), 50)
    found = targets_kept(artefact, predicted(artefact, outcomes), labels, [""] * n, draws, groups=groups)
    for one in found.values():
        assert one.status is Status.NOT_IDENTIFIABLE
        assert f"the number of groups is {n_groups}" in (one.reason or "")


def test_one_conversation_that_is_most_of_the_rows_is_one_group(artefact: RouterArtefact) -> None:
    outcomes = make_outcomes(400, with_state=True, seed=21)
    labels, groups = labels_of(outcomes).scores, np.maximum(np.arange(400) - 350, 0)
    draws = bootstrap(groups, np.random.default_rng(0), 50)
    found = targets_kept(artefact, predicted(artefact, outcomes), labels, [""] * 400, draws, groups=groups)
    assert {one.status for one in found.values()} == {Status.NOT_IDENTIFIABLE}
    assert "the number of groups is 50, worth 1.3 of one size" in (found["auto"].reason or "")


def test_a_target_whose_quality_was_not_reached_is_missed(artefact: RouterArtefact) -> None:
    """Rows on which the small model is right wherever the router trusts it least, and wrong wherever it does most."""
    outcomes = make_outcomes(700, with_state=True, seed=22)
    score = predicted(artefact, outcomes).score
    turned = [
        replace(one, weak_score=float(at > np.median(score)), strong_score=1.0)
        for one, at in zip(outcomes, score.tolist(), strict=True)
    ]
    found = kept(artefact, turned)
    assert (found["auto"].status, found["auto"].reason) == (Status.MISSED, None)
    assert (found["auto"].served.pgr.value or 0) < 0.8


def test_far_from_the_training_data_targets_are_uncalibrated_and_quality_goes_large(artefact: RouterArtefact) -> None:
    far = make_outcomes(600, with_state=True, seed=13, is_shifted=True)
    found = kept(artefact, far)
    assert {one.status for one in found.values()} == {Status.UNCALIBRATED}
    for name in ("auto", "auto-quality", "quality 0.9"):
        assert (found[name].served.large_share.value or 0) > 0.98
    by_requests, _ = drift_reasons(artefact, predicted(artefact, far), labels_of(far).scores, [""] * 600)
    assert "out_of_domain" in by_requests


def test_a_wanted_share_is_kept_where_a_fixed_threshold_loses_it(artefact: RouterArtefact) -> None:
    seen = predicted(artefact, make_outcomes(1_500, with_state=True, seed=14))
    shifted = Predictions(
        seen.p_small, seen.p_large, seen.ood, 0.3 * seen.score - 0.4, seen.small_tokens, seen.large_tokens
    )
    for wanted, one in zip(SHARES, shares_kept(artefact, shifted), strict=True):
        assert one.wanted == wanted
        assert one.controlled_at_500 is not None
        assert one.controlled_after_500 is not None
        assert abs(one.controlled_at_500 - wanted) <= 0.05
        assert abs(one.controlled_after_500 - wanted) <= 0.05
    assert shares_kept(artefact, shifted)[1].fixed < 0.1
    for wanted, one in zip(SHARES, shares_kept(artefact, seen), strict=True):
        assert abs(one.controlled - wanted) <= 0.02


def test_grades_tell_of_probabilities_that_are_wrong(artefact: RouterArtefact) -> None:
    outcomes = make_outcomes(600, with_state=True, seed=15)
    labels, seen = labels_of(outcomes).scores, predicted(artefact, outcomes)
    routes = [""] * 600
    assert drift_reasons(artefact, seen, labels, routes) == ((), ())
    without, told = drift_reasons(artefact, seen, np.zeros_like(labels), routes)
    assert without == ()
    assert told == ("calibration_small", "calibration_large")
