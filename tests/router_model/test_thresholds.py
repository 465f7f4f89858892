import numpy as np
import pytest

from router_model.logistic import Floats
from router_model.thresholds import ALWAYS_LARGE, N_SHARES, NEVER_LARGE, fit_curve


def world(n: int, seed: int) -> tuple[Floats, Floats]:
    """Scores in [-1, 1] and labels whose gain is the score in expectation."""
    rng = np.random.default_rng(seed)
    gain = rng.random(n) * 0.6 - 0.1
    small = (rng.random(n) < 0.4).astype(float)
    large = np.where(rng.random(n) < np.abs(gain), (gain > 0).astype(float), small)
    return gain, np.stack([small, large], axis=1)


def test_thresholds_send_the_share_that_the_curve_names() -> None:
    scores, labels = world(3_000, 0)
    curve = fit_curve(np.round(scores, 1), labels, np.arange(3_000), np.random.default_rng(0))
    for share, threshold, pgr in zip(curve.shares, curve.thresholds, curve.pgr, strict=True):
        goes = np.round(scores, 1) >= threshold
        assert goes.mean() == pytest.approx(share)
        quality = np.where(goes, labels[:, 1], labels[:, 0]).mean()
        small, large = labels.mean(axis=0)
        assert pgr == pytest.approx((quality - small) / (large - small))
    assert curve.thresholds[0] == NEVER_LARGE
    assert curve.thresholds[-1] == ALWAYS_LARGE
    assert (np.diff(curve.thresholds) <= 0).all()
    assert len(curve.shares) == N_SHARES


def test_a_target_takes_the_smallest_share_whose_lower_bound_reaches_it() -> None:
    scores, labels = world(3_000, 1)
    curve = fit_curve(scores, labels, np.arange(3_000), np.random.default_rng(0))
    for quality in (0.3, 0.5, 0.8, 0.95, 1.0):
        point = curve.point_for(quality)
        reached = curve.shares[curve.lower >= quality]
        assert point.share == reached.min()
        assert point.lower >= quality
        assert point.pgr >= point.lower
    assert curve.point_for(0).share == 0
    assert curve.point_for(0.5).share <= curve.point_for(0.8).share <= curve.point_for(0.95).share


def test_the_promise_holds_on_new_data_in_at_least_95_percent_of_replays() -> None:
    kept = 0
    truth, labels = world(200_000, 2)
    small, large = labels.mean(axis=0)
    for seed in range(60):
        scores, seen = world(1_500, 100 + seed)
        threshold = (
            fit_curve(scores, seen, np.arange(1_500), np.random.default_rng(0), n_draws=100).point_for(0.8).threshold
        )
        quality = np.where(truth >= threshold, labels[:, 1], labels[:, 0]).mean()
        kept += (quality - small) / (large - small) >= 0.8
    # The search over shares costs the pointwise bound a little; 52 of 60 or fewer have probability 0.01 at 95 %.
    assert kept >= 53


def test_grouped_rows_widen_the_band() -> None:
    scores, labels = world(400, 3)
    repeated, labels = np.repeat(scores, 5), np.repeat(labels, 5, axis=0)
    rng = np.random.default_rng
    alone = fit_curve(repeated, labels, np.arange(2_000), rng(0))
    grouped = fit_curve(repeated, labels, np.repeat(np.arange(400), 5), rng(0))
    assert (grouped.pgr - grouped.lower)[50] > 1.5 * (alone.pgr - alone.lower)[50]


def test_without_a_measurable_gap_nothing_is_promised() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (300, 2)).astype(float)
    labels[:, 1] = labels[rng.permutation(300), 0]
    curve = fit_curve(rng.random(300), labels, np.arange(300), rng)
    assert not curve.is_identified
    assert curve.point_for(0.8).share == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("quality", [-0.1, 1.1, float("nan")])
def test_a_target_outside_its_range_is_refused(quality: float) -> None:
    scores, labels = world(300, 5)
    curve = fit_curve(scores, labels, np.arange(300), np.random.default_rng(0))
    with pytest.raises(ValueError, match="use 0"):
        curve.point_for(quality)
