import time
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from router_model.costs import RowCosts
from router_model.logistic import Floats
from router_model.options import QualityScale
from router_model.thresholds import ALWAYS_LARGE, N_SHARES, NEVER_LARGE, ConflictingWish, Wish, fit_curve

GAP, OF_LARGE = QualityScale.GAP, QualityScale.LARGE


def world(n: int, seed: int) -> tuple[Floats, Floats]:
    """Scores in [-1, 1] and labels whose gain is the score in expectation."""
    rng = np.random.default_rng(seed)
    gain = rng.random(n) * 0.6 - 0.1
    small = (rng.random(n) < 0.4).astype(float)
    large = np.where(rng.random(n) < np.abs(gain), (gain > 0).astype(float), small)
    return gain, np.stack([small, large], axis=1)


def seconds(gain: Floats, labels: Floats, seed: int) -> Floats:
    """Ranks of a second answer: what the large model gains over the small one's answer, of which a look tells in three
    of four cases whether it is right; a tenth of the wrong ones have failed.
    """
    rng = np.random.default_rng(seed)
    is_right = labels[:, 0] > 0
    looks_right = is_right == (rng.random(len(gain)) < 0.75)
    right = np.where(looks_right, 0.4 * 0.75 / (0.4 * 0.75 + 0.6 * 0.25), 0.4 * 0.25 / (0.4 * 0.25 + 0.6 * 0.75))
    failed = ~is_right & (rng.random(len(gain)) < 0.1)
    return np.where(failed, np.inf, np.abs(gain) * ((gain > 0) - right))


def costs_of(n: int, seed: int) -> RowCosts:
    rng = np.random.default_rng(seed)
    small = rng.uniform(0.5, 2.0, n)
    return RowCosts(small, small * rng.uniform(4, 9, n), 0.3 * small)


def test_every_point_is_what_its_threshold_does_to_the_rows() -> None:
    """Against the plain definition: send rows by threshold, and add up."""
    scores, labels = world(3_000, 0)
    ranks, costs = np.round(scores, 2), costs_of(3_000, 1)
    always = np.random.default_rng(2).random(3_000) < 0.02
    curve = fit_curve(ranks, labels, np.arange(3_000), np.random.default_rng(0), costs=costs, always=always)
    small, large = labels.mean(axis=0)
    for i in range(N_SHARES):
        goes = (ranks >= curve.thresholds[i]) | always
        quality = np.where(goes, labels[:, 1], labels[:, 0]).mean()
        spent = np.where(goes, costs.large + costs.route, costs.small).sum()
        assert curve.shares[i] == pytest.approx(goes.mean())
        assert curve.pgr[i] == pytest.approx((quality - small) / (large - small))
        assert curve.quality[i] == pytest.approx(quality / large)
        assert curve.cost[i] == pytest.approx(1.0 if i == N_SHARES - 1 else spent / costs.large.sum())
    assert (curve.thresholds[0], curve.thresholds[-1]) == (NEVER_LARGE, ALWAYS_LARGE)
    assert (np.diff(curve.thresholds) <= 0).all()
    for name in ("pgr", "quality", "cost"):
        low, high = {"pgr": ("lower", "upper")}.get(name, (f"{name}_lower", f"{name}_upper"))
        assert (getattr(curve, low) <= getattr(curve, name) + 1e-9).all()
        assert (getattr(curve, high) >= getattr(curve, name) - 1e-9).all()


def test_every_point_with_second_chances_is_what_its_threshold_does_to_the_rows() -> None:
    """Against the plain definition: decide by rank, judge by the second rank, and add up what is paid."""
    scores, labels = world(1_500, 0)
    ranks, costs, again = np.round(scores, 2), costs_of(1_500, 1), seconds(scores, labels, 4)
    always = np.random.default_rng(2).random(1_500) < 0.02
    curve = fit_curve(
        ranks, labels, np.arange(1_500), np.random.default_rng(0), costs=costs, always=always, second=again
    )
    small, large = labels.mean(axis=0)
    for i in range(N_SHARES):
        at_first = (ranks >= curve.thresholds[i]) | always
        answered_twice = ~at_first & (again >= curve.thresholds[i])
        quality = np.where(at_first | answered_twice, labels[:, 1], labels[:, 0]).mean()
        spent = np.where(at_first, costs.large + costs.route, costs.small + answered_twice * costs.large).sum()
        assert curve.first_shares[i] == pytest.approx(at_first.mean())
        assert curve.shares[i] == pytest.approx((at_first | answered_twice).mean())
        assert curve.pgr[i] == pytest.approx((quality - small) / (large - small))
        assert curve.quality[i] == pytest.approx(quality / large)
        assert curve.cost[i] == pytest.approx(1.0 if i == N_SHARES - 1 else spent / costs.large.sum())
        assert curve.first_share_at(float(curve.thresholds[i])) == curve.first_shares[i]
    assert curve.has_second_chances
    assert (np.diff(curve.shares) >= 0).all()
    for name in ("pgr", "quality", "cost"):
        low, high = {"pgr": ("lower", "upper")}.get(name, (f"{name}_lower", f"{name}_upper"))
        assert (getattr(curve, low) <= getattr(curve, name) + 1e-9).all()
        assert (getattr(curve, high) >= getattr(curve, name) - 1e-9).all()


def test_without_second_chances_to_be_had_the_curve_is_the_very_same() -> None:
    scores, labels = world(1_000, 0)
    plain, never = (
        fit_curve(scores, labels, np.arange(1_000), np.random.default_rng(0), costs=costs_of(1_000, 1), second=second)
        for second in (None, np.full(1_000, -np.inf))
    )
    for field in fields(plain):
        np.testing.assert_array_equal(getattr(plain, field.name), getattr(never, field.name))
    assert not plain.has_second_chances


@pytest.mark.parametrize("scale", QualityScale)
def test_a_quality_takes_the_smallest_share_from_which_on_every_bound_reaches_it(scale: QualityScale) -> None:
    scores, labels = world(3_000, 1)
    curve = fit_curve(scores, labels, np.arange(3_000), np.random.default_rng(0))
    bound = curve.lower if scale is GAP else curve.quality_lower
    shares = []
    for quality in (0.0, 0.3, 0.5, 0.8, 0.95, 1.0):
        point = curve.point_for(quality, scale)
        keeping = [i for i in range(N_SHARES) if (bound[i:] >= quality).all()]
        assert point.share == curve.shares[min(keeping)]
        assert (point.lower if scale is GAP else point.quality_lower) >= quality
        shares.append(point.share)
    assert shares == sorted(shares)
    assert curve.point_for(0.0, scale).threshold == NEVER_LARGE


def test_a_budget_alone_is_spent_as_far_as_it_goes() -> None:
    scores, labels = world(3_000, 1)
    curve = fit_curve(scores, labels, np.arange(3_000), np.random.default_rng(0), costs=costs_of(3_000, 3))
    for budget in (0.2, 0.4, 0.7, 1.0):
        point = curve.point(Wish(cost=budget))
        assert point.cost == max(cost for cost in curve.cost if cost <= budget)
        assert point.cost == pytest.approx(budget, abs=0.02)
        assert (point.share == 1) == (budget == 1)
        assert point.target is None
    free = fit_curve(scores, labels, np.arange(3_000), np.random.default_rng(0))
    for budget in (0.0, 0.35, 1.0):
        assert free.point(Wish(cost=budget)).share == pytest.approx(budget)
    with pytest.raises(ConflictingWish, match="small model alone costs"):
        curve.point(Wish(cost=0.05))


def test_both_wishes_take_the_cheapest_that_keeps_the_quality_or_say_what_it_costs() -> None:
    scores, labels = world(3_000, 1)
    curve = fit_curve(scores, labels, np.arange(3_000), np.random.default_rng(0), costs=costs_of(3_000, 3))
    alone = curve.point_for(0.9, OF_LARGE)
    assert curve.point(Wish(0.9, OF_LARGE, alone.cost_upper)) == alone
    with pytest.raises(ConflictingWish, match=f"costs up to {alone.cost_upper:.1%}"):
        curve.point(Wish(0.9, OF_LARGE, alone.cost_upper - 0.02))


PROMISES = [(0.8, GAP), (0.95, GAP), (0.9, OF_LARGE), (0.97, OF_LARGE)]


@pytest.mark.parametrize(("quality", "scale"), PROMISES)
def test_a_promised_quality_holds_on_new_data_in_at_least_95_percent_of_replays(
    quality: float, scale: QualityScale
) -> None:
    truth, labels = world(200_000, 2)
    small, large = labels.mean(axis=0)
    kept = 0
    for seed in range(200):
        scores, seen = world(1_500, 100 + seed)
        curve = fit_curve(scores, seen, np.arange(1_500), np.random.default_rng(seed), n_draws=200)
        reached = np.where(truth >= curve.point_for(quality, scale).threshold, labels[:, 1], labels[:, 0]).mean()
        kept += (reached - small) / (large - small) >= quality if scale is GAP else reached / large >= quality
    # 182 of 200 or fewer have probability 0.01 where the promise holds in 95 %.
    assert kept >= 183


@pytest.mark.parametrize(("quality", "scale"), PROMISES)
def test_quality_and_cost_with_second_chances_hold_on_new_data_in_at_least_95_percent_of_replays(
    quality: float, scale: QualityScale
) -> None:
    truth, labels = world(200_000, 2)
    small, large = labels.mean(axis=0)
    costs, again = costs_of(200_000, 4), seconds(truth, labels, 5)
    kept = affordable = 0
    for seed in range(200):
        scores, seen = world(1_500, 100 + seed)
        seen_costs, second = costs_of(1_500, 1_000 + seed), seconds(scores, seen, 2_000 + seed)
        rng = np.random.default_rng(seed)
        curve = fit_curve(scores, seen, np.arange(1_500), rng, n_draws=200, costs=seen_costs, second=second)
        point = curve.point_for(quality, scale)
        at_first = truth >= point.threshold
        twice = ~at_first & (again >= point.threshold)
        reached = np.where(at_first | twice, labels[:, 1], labels[:, 0]).mean()
        kept += (reached - small) / (large - small) >= quality if scale is GAP else reached / large >= quality
        spent = np.where(at_first, costs.large + costs.route, costs.small + twice * costs.large).sum()
        affordable += (1.0 if point.threshold == ALWAYS_LARGE else spent / costs.large.sum()) <= point.cost_upper
    # 182 of 200 or fewer have probability 0.01 where the promise holds in 95 %.
    assert kept >= 183
    assert affordable >= 183


def test_a_cost_beside_a_quality_holds_on_new_data_in_at_least_95_percent_of_replays() -> None:
    truth, _ = world(200_000, 2)
    costs = costs_of(200_000, 4)
    kept = 0
    for seed in range(200):
        scores, seen = world(1_500, 100 + seed)
        rng, seen_costs = np.random.default_rng(seed), costs_of(1_500, 1_000 + seed)
        point = fit_curve(scores, seen, np.arange(1_500), rng, n_draws=200, costs=seen_costs).point_for(0.8)
        goes = truth >= point.threshold
        kept += np.where(goes, costs.large + costs.route, costs.small).sum() / costs.large.sum() <= point.cost_upper
    # 182 of 200 or fewer have probability 0.01 where the bound holds in 95 %.
    assert kept >= 183


def test_of_the_thresholds_that_keep_a_quality_the_cheapest_is_taken() -> None:
    """Where small answers are mostly paid for in vain, sending more up at once costs less."""
    rng = np.random.default_rng(6)
    gain = rng.random(2_000)
    labels = np.stack([np.zeros(2_000), np.ones(2_000)], axis=1)
    small = np.full(2_000, 0.9)
    costs = RowCosts(small, np.ones(2_000), np.zeros(2_000))
    curve = fit_curve(gain, labels, np.arange(2_000), rng, costs=costs, second=np.where(gain > 0.2, np.inf, -np.inf))
    point = curve.point_for(0.7, OF_LARGE)
    assert curve.quality_lower[0] >= 0.7, "the highest threshold keeps it"
    assert curve.cost[0] > 1.6
    assert point.cost == curve.cost.min() < 1.01
    with pytest.raises(ConflictingWish, match="with what has to be answered again"):
        curve.point(Wish(cost=0.5))


def test_grouped_rows_widen_the_band() -> None:
    scores, labels = world(400, 3)
    repeated, labels = np.repeat(scores, 5), np.repeat(labels, 5, axis=0)
    rng = np.random.default_rng
    alone = fit_curve(repeated, labels, np.arange(2_000), rng(0))
    grouped = fit_curve(repeated, labels, np.repeat(np.arange(400), 5), rng(0))
    assert (grouped.pgr - grouped.lower)[50] > 1.5 * (alone.pgr - alone.lower)[50]


def test_without_a_measurable_gap_no_part_of_it_is_promised_but_the_large_models_quality_is() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, (300, 2)).astype(float)
    labels[:, 1] = labels[rng.permutation(300), 0]
    curve = fit_curve(rng.random(300), labels, np.arange(300), rng)
    assert not curve.is_identified
    assert curve.point_for(0.8).share == pytest.approx(0.8, abs=0.01)
    assert curve.point_for(0.8, OF_LARGE).share < 0.1  # the small model is as good


def test_a_quality_that_nothing_else_reaches_is_all_large() -> None:
    rng = np.random.default_rng(5)
    labels = np.stack([np.zeros(200), np.ones(200)], axis=1)
    curve = fit_curve(rng.random(200), labels, np.arange(200), rng)
    point = curve.point_for(1.0, OF_LARGE)
    assert (point.threshold, point.share, point.quality_lower, point.cost) == (ALWAYS_LARGE, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_wish_outside_its_range_is_refused(value: float) -> None:
    wishes: list[Callable[[], object]] = [lambda: Wish(value), lambda: Wish(cost=value)]
    for wish in wishes:
        with pytest.raises(ValueError, match="use 0"):
            wish()
    with pytest.raises(ValueError, match="nothing is wished"):
        Wish()


def test_shares_between_points_have_thresholds_between() -> None:
    scores, labels = world(2_000, 6)
    curve = fit_curve(scores, labels, np.arange(2_000), np.random.default_rng(0))
    for share in (0.0, 0.105, 0.333, 0.5, 1.0):
        assert (scores >= curve.threshold_at(share)).mean() == pytest.approx(share, abs=0.011)


def test_the_bootstrap_is_quick_enough_to_be_done_at_start() -> None:
    scores, labels = world(6_000, 7)
    began = time.perf_counter()
    fit_curve(scores, labels, np.arange(6_000), np.random.default_rng(0), costs=costs_of(6_000, 8))
    assert time.perf_counter() - began < 5  # some 0.05 s; a busy machine may take longer
