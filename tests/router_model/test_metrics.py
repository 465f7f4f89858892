import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from router_model.metrics import (
    apgr,
    auroc,
    brier,
    cpt,
    ece,
    ece_debiased,
    eleven_points,
    is_large_needed,
    pgr,
    share_curve,
)

ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=6)


def columns(rows: list[tuple[int, bool, bool]]) -> tuple[np.ndarray, np.ndarray]:
    data = np.array(rows, np.float64)
    return data[:, 0], data[:, 1:]


@given(ROWS)
def test_quality_at_a_share_is_the_mean_over_all_ways_to_break_ties(rows: list[tuple[int, bool, bool]]) -> None:
    scores, labels = columns(rows)
    n = len(rows)
    orders = [order for order in itertools.permutations(range(n)) if (np.diff(scores[list(order)]) <= 0).all()]
    curve = share_curve(scores, labels)
    for sent in range(n + 1):
        qualities = [(labels[list(o[:sent]), 1].sum() + labels[list(o[sent:]), 0].sum()) / n for o in orders]
        assert np.interp(sent / n, *curve) == pytest.approx(np.mean(qualities))


def test_pgr_apgr_and_cpt_of_a_hand_computed_case() -> None:
    # Two prompts only the large model gets right, two that both do; the score finds one of the two first.
    labels = np.array([[0, 1], [1, 1], [0, 1], [1, 1]], np.float64)
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    shares, quality = share_curve(scores, labels)
    np.testing.assert_allclose(shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quality, [0.5, 0.75, 0.75, 1, 1])
    np.testing.assert_allclose(np.asarray(pgr(quality, labels)), [0, 0.5, 0.5, 1, 1])
    assert apgr(scores, labels) == pytest.approx((0.25 + 0.5 + 0.75 + 1) / 4)
    assert cpt(scores, labels, 0.3) == pytest.approx(15.0)


def test_random_is_half_and_its_cpt_is_the_target() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (500, 2)).astype(float)
    labels[:50] = [0, 1]
    tied = np.zeros(500)
    assert apgr(tied, labels) == pytest.approx(0.5)
    shares, quality = eleven_points(tied, labels)
    np.testing.assert_allclose(np.asarray(pgr(quality, labels)), shares, atol=1e-9)
    assert cpt(tied, labels, 0.5) == pytest.approx(50)
    assert cpt(tied, labels, 0.8) == pytest.approx(80)


def test_the_oracle_beats_every_ranking_and_its_reverse_is_the_mirror() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (300, 2)).astype(float)
    labels[:60] = [0, 1]
    gains = labels[:, 1] - labels[:, 0]
    assert all(apgr(gains, labels) >= apgr(rng.random(300), labels) for _ in range(20))
    scores = rng.random(300)
    assert apgr(scores, labels) + apgr(-scores, labels) == pytest.approx(1)


def test_the_eleven_points_are_routellms_where_no_scores_are_equal() -> None:
    rng = np.random.default_rng(2)
    n = 1_000
    scores, labels = rng.random(n), rng.integers(0, 2, (n, 2)).astype(float)
    # Their evaluate.py: a prompt goes to the strong model where its score reaches the threshold; thresholds at deciles.
    thresholds = np.quantile(scores, np.linspace(0, 1, 11))[::-1]
    thresholds[0] = np.inf
    theirs = [np.where(scores >= t, labels[:, 1], labels[:, 0]).mean() for t in thresholds]
    shares, quality = eleven_points(scores, labels)
    np.testing.assert_allclose(shares, np.linspace(0, 1, 11))
    np.testing.assert_allclose(quality, theirs, atol=1.5 / n)


def test_equally_good_models_leave_the_gap_measures_undefined() -> None:
    labels = np.array([[0, 1], [1, 0]], np.float64)
    scores = np.array([0.0, 1.0])
    assert np.isnan(apgr(scores, labels))
    assert np.isnan(cpt(scores, labels, 0.5))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array(rows, np.float64).T
    if positive.all() or not positive.any():
        assert np.isnan(auroc(scores, positive.astype(bool)))
    else:
        assert auroc(scores, positive.astype(bool)) == pytest.approx(roc_auc_score(positive, scores))


def test_large_is_needed_where_only_it_is_right() -> None:
    labels = np.array([[0, 1], [0.4, 0.5], [0.5, 1], [0, 0.4], [1, 0]])
    assert is_large_needed(labels).tolist() == [True, True, False, False, False]


def test_calibration_errors_of_a_hand_computed_case() -> None:
    p = np.array([0.1, 0.3, 0.6, 0.8])
    y = np.array([0.0, 1.0, 1.0, 1.0])
    assert ece(p, y, n_bins=2) == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1.0)) / 2)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p))
    # The first bin's mean has variance 0.5 / 2, more than both squared errors; without it they count in full.
    assert ece_debiased(p, y, n_bins=2) == 0
    assert ece_debiased(p, np.array([0.0, 0, 1, 1]), n_bins=2) == pytest.approx(np.sqrt((0.2**2 + 0.3**2) / 2))


def test_debiasing_takes_away_what_noise_gives_and_leaves_what_is_wrong() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    assert ece_debiased(p[:400], y[:400]) < ece(p[:400], y[:400])
    assert ece_debiased(p, y) < 0.01
    assert ece_debiased(np.clip(p + 0.2, 0, 2), y) == pytest.approx(0.2, abs=0.01)
