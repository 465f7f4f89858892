from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.bundle import recalibrate
from router_model.features import Kind, extract_outcome
from router_model.metrics import ece
from router_model.outcomes import Outcome
from router_model.policy import Policy, RouteOptions
from tests.router_model.worlds import make_outcomes


def harder(rows: Sequence[Outcome], seed: int) -> list[Outcome]:
    """The same requests, of which the small model gets a third fewer right than it used to."""
    rng = np.random.default_rng(seed)
    return [replace(row, weak_score=row.weak_score * float(rng.random() < 0.67)) for row in rows]


def test_new_labels_repair_probabilities_that_no_longer_hold(artefact: RouterArtefact) -> None:
    fresh = harder(make_outcomes(1_500, with_state=True, seed=31), 1)
    test = harder(make_outcomes(2_000, with_state=True, seed=32), 2)
    again = recalibrate(artefact, fresh)
    features, right = [extract_outcome(one, Kind.STATE) for one in test], np.array([one.weak_score for one in test])
    before, after = artefact.predict(features), again.predict(features)
    assert ece(before.p_small, right) > 0.1
    assert ece(after.p_small, right) < 0.05
    assert np.abs(after.p_large - before.p_large).mean() < 0.05
    np.testing.assert_allclose(after.score[after.ood <= 1], (after.p_large - after.p_small)[after.ood <= 1])
    # Its promises hold for the new world, where those of before no longer do.
    point = Policy(artefact=again).check(RouteOptions(quality=0.9))
    large = np.array([one.strong_score for one in test])
    reached = np.where(after.score >= point.threshold, large, right).mean() / large.mean()
    assert reached >= 0.9
    assert again.evidence.scores.shape == (1_500, 2)


def test_a_recalibrated_router_is_another_and_comes_back_from_disk(tmp_path: Path, artefact: RouterArtefact) -> None:
    rows = make_outcomes(400, with_state=True, seed=33)
    rows = [replace(row, route="code" if i % 2 else "") for i, row in enumerate(rows)]
    again = recalibrate(artefact, rows)
    again.save(tmp_path)
    loaded = RouterArtefact.load(tmp_path, small_model="small-1", large_model="large-1")
    assert loaded.hash == again.hash != artefact.hash
    assert loaded.manifest.recalibration is not None
    assert loaded.manifest.recalibration.parent == artefact.hash
    assert loaded.front is None
    features = [extract_outcome(row, Kind.STATE) for row in rows[:50]]
    for routes in ([], ["code"] * 50, ["unheard"] * 50):
        np.testing.assert_array_equal(loaded.predict(features, routes).score, again.predict(features, routes).score)
    assert (again.predict(features, ["code"] * 50).p_small != again.predict(features).p_small).any()
    assert recalibrate(artefact, rows).hash == again.hash


def test_one_sided_labels_repair_their_side(artefact: RouterArtefact) -> None:
    pairs = make_outcomes(200, with_state=True, seed=34)
    served = [
        replace(row, strong_score=float("nan"), weight=2.0)
        for row in harder(make_outcomes(900, with_state=True, seed=35), 3)
    ]
    again = recalibrate(artefact, pairs + served)
    assert again.manifest.n_both == 200
    features = [extract_outcome(one, Kind.STATE) for one in pairs]
    assert again.predict(features).p_small.mean() < artefact.predict(features).p_small.mean() - 0.1


def test_what_new_labels_cover_is_no_longer_unfamiliar(artefact: RouterArtefact) -> None:
    far = make_outcomes(300, with_state=True, seed=36, is_shifted=True)
    features = [extract_outcome(one, Kind.STATE) for one in far]
    assert (artefact.predict(features).ood > 1).all()
    assert (recalibrate(artefact, far).predict(features).ood > 1).mean() < 0.05


def test_thresholds_need_rows_that_both_models_answered(artefact: RouterArtefact) -> None:
    rows = [replace(row, weak_score=float("nan")) for row in make_outcomes(300, with_state=True, seed=37)]
    with pytest.raises(ValueError, match="run the shadow job"):
        recalibrate(artefact, rows)


def test_thresholds_count_rows_by_their_weight(artefact: RouterArtefact) -> None:
    """Rows that are drawn less often where the small model fails would promise too much of it, counted alike."""
    rows = make_outcomes(1_200, with_state=True, seed=38)
    rare = [row for i, row in enumerate(rows) if row.weak_score == 1 or i % 5 == 0]
    weighted = [replace(row, weight=1.0 if row.weak_score == 1 else 5.0) for row in rare]
    every, some, counted = (recalibrate(artefact, one).evidence.curve() for one in (rows, rare, weighted))
    assert some.quality[0] > every.quality[0] + 0.1
    assert counted.quality[0] == pytest.approx(every.quality[0], abs=0.06)
    thin = [replace(row, weight=0.0) for row in rows[90:]]
    with pytest.raises(ValueError, match="90 outcomes have the scores of both models"):
        recalibrate(artefact, rows[:90] + thin)
