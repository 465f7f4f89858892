"""What targets came to on rows: figures against their definitions, and statuses that say what happened."""

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.evaluation import bootstrap
from router_model.features import Kind, extract_outcome
from router_model.model import Predictions
from router_model.options import RouteOptions
from router_model.outcomes import Outcome
from router_model.promises import SHARES, Status, TargetKept, shares_kept, targets_kept
from router_model.serving import drift_reasons, serve
from router_model.training import labels_of
from tests.router_model.worlds import make_outcomes


def predicted(artefact: RouterArtefact, outcomes: list[Outcome]) -> Predictions:
    return artefact.predict([extract_outcome(one, Kind.STATE) for one in outcomes])


def kept(artefact: RouterArtefact, outcomes: list[Outcome]) -> dict[str, TargetKept]:
    labels = labels_of(outcomes).scores
    draws = bootstrap(np.arange(len(outcomes)), np.random.default_rng(0), 50)
    return targets_kept(artefact, predicted(artefact, outcomes), labels, [""] * len(outcomes), draws)


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


def test_a_kept_promise_is_met_and_covered_in_domain(artefact: RouterArtefact) -> None:
    found = kept(artefact, make_outcomes(1_500, with_state=True, seed=12))
    for one in found.values():
        assert one.calibrated_share > 0.9
        assert one.status is Status.MET
    assert found["auto-quality"].promised_share > found["auto-cost"].promised_share


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
