from dataclasses import replace

import numpy as np
import pytest

from router_model.baselines import knn_scores, length_scores, oracle_scores, random_scores, subject_scores
from router_model.encoder import Encoder
from router_model.evaluation import apgr_differences, bootstrap, calibration, routing_quality
from router_model.features import Kind, extract_outcome
from router_model.metrics import apgr, auroc, cpt, eleven_points, is_large_needed, pgr, share_curve
from router_model.training import labels_of
from tests.router_model.worlds import make_outcomes


def test_the_interval_holds_the_value_and_narrows_with_data() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (200, 3_200):
        scores = rng.random(n)
        labels = np.stack([rng.random(n) < 0.8 - 0.6 * scores, rng.random(n) < 0.9], axis=1).astype(float)
        measured = routing_quality(scores, labels, bootstrap(np.arange(n), rng)).apgr
        assert measured.value is not None
        assert measured.lower is not None
        assert measured.upper is not None
        assert measured.lower < measured.value < measured.upper
        widths.append(measured.upper - measured.lower)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    n = 600
    scores = rng.random(n)
    labels = np.stack([rng.random(n) < 0.8 - 0.6 * scores, rng.random(n) < 0.9], axis=1).astype(float)
    near = scores + 0.05 * rng.random(n)
    draws = bootstrap(np.arange(n), rng)
    differences = apgr_differences(scores, {"near": near, "itself": scores}, labels, draws)
    alone = routing_quality(scores, labels, draws).apgr
    near_difference = differences["near"]
    assert near_difference.value == pytest.approx(apgr(scores, labels) - apgr(near, labels))
    assert (near_difference.upper or 0) - (near_difference.lower or 0) < 0.5 * ((alone.upper or 0) - (alone.lower or 0))
    assert (differences["itself"].lower, differences["itself"].upper) == (0, 0)


def test_undefined_measures_are_none() -> None:
    labels = np.ones((50, 2))
    draws = bootstrap(np.arange(50), np.random.default_rng(0), 10)
    quality = routing_quality(np.arange(50.0), labels, draws)
    assert (quality.apgr.value, quality.cpt50.value, quality.auroc_need.value) == (None, None, None)


def test_every_measure_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 40, 300).astype(float)  # with ties
    labels = np.stack([rng.random(300) < 0.6, rng.random(300) < 0.8], axis=1).astype(float)
    found = routing_quality(scores, labels, bootstrap(np.arange(300), rng, 5))
    assert found.apgr.value == pytest.approx(apgr(scores, labels))
    shares, quality = eleven_points(scores, labels)
    assert found.apgr_eleven.value == pytest.approx(np.trapezoid(np.asarray(pgr(quality, labels)), shares))
    assert found.cpt50.value == pytest.approx(cpt(scores, labels, 0.5))
    assert found.cpt80.value == pytest.approx(cpt(scores, labels, 0.8))
    assert found.auroc_need.value == pytest.approx(auroc(scores, is_large_needed(labels)))
    assert found.quality_at_half.value == pytest.approx(np.interp(0.5, *share_curve(scores, labels)))


def test_whole_groups_are_drawn() -> None:
    groups = np.repeat(np.arange(30), 4)
    first, *others = bootstrap(groups, np.random.default_rng(0), 20)
    assert (first == np.arange(120)).all()
    for rows in others:
        counts = np.bincount(rows, minlength=120).reshape(30, 4)
        assert (counts == counts[:, :1]).all()


def test_baselines_rank_as_they_are_named() -> None:
    outcomes = make_outcomes(400, with_state=True)
    labels = labels_of(outcomes).scores
    assert apgr(random_scores(outcomes), labels) == pytest.approx(0.5)
    assert apgr(length_scores(outcomes), labels) > 0.6
    assert apgr(oracle_scores(labels), labels) > apgr(length_scores(outcomes), labels)
    features = [extract_outcome(one, Kind.STATE) for one in outcomes]
    encoder = Encoder.fit(features[:300], np.random.default_rng(0))
    scores = knn_scores(encoder, features[:300], labels[:300], features[300:])
    # The definition: mean gain of the 100 nearest by cosine.
    known, asked = encoder.encode_all(features[:300]), encoder.encode_all(features[300:])
    cosine = asked @ known.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(known, axis=1)
    gains = labels[:300, 1] - labels[:300, 0]
    expected = [gains[np.argsort(-row)[:100]].mean() for row in cosine]
    np.testing.assert_allclose(scores, expected)


def test_calibration_of_honest_probabilities_is_nearly_perfect() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    draws = bootstrap(np.arange(20_000), rng, 20)
    measured = calibration(p, (rng.random(20_000) < p).astype(float), draws)
    assert (measured.ece.value or 1) < 0.02
    assert (measured.ece_debiased.value or 0) < 0.01
    assert measured.brier.value == pytest.approx(1 / 6, abs=0.01)
    assert measured.brier.lower is not None
    assert measured.brier.lower < (measured.brier.value or 0)


def test_the_subject_baseline_knows_no_more_than_the_subjects_mean_gain() -> None:
    outcomes = [replace(one, subject="abc"[i % 3]) for i, one in enumerate(make_outcomes(303, with_state=False))]
    labels = labels_of(outcomes).scores
    test = [outcomes[0], outcomes[1], replace(outcomes[2], subject="unknown")]
    scores = subject_scores(outcomes, labels, test)
    gains = labels[:, 1] - labels[:, 0]
    for score, first in zip(scores[:2], (0, 1), strict=True):
        own = gains[first::3]
        assert score == pytest.approx((own.sum() + 10 * gains.mean()) / (len(own) + 10))
    assert scores[2] == pytest.approx(gains.mean())
