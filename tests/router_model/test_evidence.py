import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from router_model.costs import Prices, TokenPrice, row_costs
from router_model.evidence import Evidence, evidence_of
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.options import Cascade
from router_model.recalibration import take

PRICES = Prices(small=TokenPrice(input_usd=1e-7, output_usd=2e-7), large=TokenPrice(input_usd=1e-6, output_usd=3e-6))


def made(n: int = 1_000, *, has_tokens: bool = True, seed: int = 0) -> tuple[Predictions, Floats, Floats]:
    rng = np.random.default_rng(seed)
    p_small, p_large = rng.random(n), 0.5 + 0.5 * rng.random(n)
    scores = np.stack([rng.random(n) < p_small, rng.random(n) < p_large], axis=1).astype(float)
    tokens = rng.integers(10, 400, (n, 3)).astype(float)
    expected = (tokens[:, 1] * 0.9, tokens[:, 2] * 1.1) if has_tokens else (None, None)
    held_out = Predictions(p_small, p_large, rng.uniform(0, 1.1, n), p_large - p_small, *expected)
    return held_out, scores, tokens


def evidence(*, has_tokens: bool = True) -> Evidence:
    held_out, scores, tokens = made(has_tokens=has_tokens)
    return evidence_of(held_out, scores, np.arange(len(scores)), tokens=tokens, has_prefill=True)


def with_answers(n: int = 1_000) -> Evidence:
    """Two thirds of the rows have an answer that was judged, a tenth one that failed."""
    held_out, scores, tokens = made(n)
    rng = np.random.default_rng(3)
    right = np.where(rng.random(n) < 2 / 3, np.clip(0.6 * scores[:, 0] + 0.4 * rng.random(n), 0, 1), np.nan)
    failed = rng.random(n) < 0.1
    return evidence_of(
        held_out, scores, np.arange(n), tokens=tokens, right=right, failed=failed, has_prefill=True, seed=4
    )


def test_only_rows_with_both_scores_are_evidence() -> None:
    held_out, scores, tokens = made()
    scores[::3, 0], scores[1::5, 1] = np.nan, np.nan
    routes = [f"r{i % 2}" for i in range(len(scores))]
    found = evidence_of(held_out, scores, np.arange(len(scores)) // 2, routes=routes, tokens=tokens)
    both = np.isfinite(scores).all(axis=1)
    np.testing.assert_array_equal(found.scores, scores[both])
    np.testing.assert_allclose(found.held_out.score, held_out.score[both], atol=1e-6)
    assert found.routes == [routes[i] for i in np.flatnonzero(both)]
    with pytest.raises(ValueError, match="scores of both models"):
        evidence_of(held_out, np.full_like(scores, np.nan), np.arange(len(scores)))


def test_evidence_comes_back_from_its_arrays_with_the_same_curves() -> None:
    before = with_answers()
    after = Evidence.from_arrays(before.arrays(), before.meta)
    for prices, is_guarded, cascade in itertools.product((None, PRICES), (True, False), Cascade):
        one, two = (each.curve(prices, is_guarded=is_guarded, cascade=cascade) for each in (before, after))
        for name in ("thresholds", "shares", "first_shares", "lower", "quality_lower", "cost_upper"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_evidence_from_before_failures_were_noted_counts_none_and_keeps_its_arrays() -> None:
    arrays = {name: array for name, array in with_answers().arrays().items() if name != "evidence.failed"}
    old = Evidence.from_arrays(arrays, with_answers().meta)
    assert not old.failed.any()
    assert old.arrays().keys() == arrays.keys()
    assert not old.curve(cascade=Cascade.VALIDATION).has_second_chances
    assert old.curve(cascade=Cascade.CONFIDENCE).has_second_chances


def test_a_row_of_a_weight_is_so_many_rows_of_its_group() -> None:
    made_up, scores, tokens = made(400)
    # Many equal ranks, so that both have the same cuts.
    held_out = replace(made_up, score=np.round(made_up.score, 1))
    times = np.random.default_rng(5).integers(1, 4, 400)
    rows = np.repeat(np.arange(400), times)
    weights: Floats = 0.7 * times.astype(np.float64)
    one = evidence_of(held_out, scores, np.arange(400), tokens=tokens, weights=weights).curve()
    two = evidence_of(take(held_out, rows), scores[rows], rows, tokens=tokens[rows]).curve()
    at = [int(np.flatnonzero(two.thresholds == threshold)[-1]) for threshold in one.thresholds]
    assert len(set(at)) > 10
    for name in ("shares", "pgr", "quality", "cost", "lower", "quality_lower", "cost_upper"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name)[at], rtol=1e-5, atol=1e-6)


def test_weights_come_back_from_the_arrays_and_equal_ones_leave_no_trace() -> None:
    held_out, scores, tokens = made()
    n = len(scores)
    plain = evidence_of(held_out, scores, np.arange(n), tokens=tokens)
    assert "evidence.weights" not in plain.arrays()
    equal = evidence_of(held_out, scores, np.arange(n), tokens=tokens, weights=np.full(n, 1 / 0.3))
    assert equal.arrays().keys() == plain.arrays().keys()
    np.testing.assert_array_equal(Evidence.from_arrays(plain.arrays(), plain.meta).weights, np.ones(n))
    weights = np.where(scores[:, 0] > 0, 1.0, 5.0)
    before = evidence_of(held_out, scores, np.arange(n), tokens=tokens, weights=weights)
    after = Evidence.from_arrays(before.arrays(), before.meta)
    np.testing.assert_array_equal(after.curve().lower, before.curve().lower)
    assert before.weights.mean() == pytest.approx(1)
    mean = np.average(scores, axis=0, weights=weights)
    assert before.curve(is_guarded=False).quality[0] == pytest.approx(mean[0] / mean[1], rel=1e-5)


def test_unequal_weights_widen_the_bounds() -> None:
    held_out, scores, tokens = made()
    weights = np.random.default_rng(6).choice([1.0, 20.0], len(scores), p=[0.9, 0.1])
    widths = []
    for one in (None, weights):
        curve = evidence_of(held_out, scores, np.arange(len(scores)), tokens=tokens, weights=one).curve()
        widths.append(float((curve.quality - curve.quality_lower)[30:80].mean()))
    assert widths[1] > 1.4 * widths[0]


def test_a_row_without_weight_is_no_evidence() -> None:
    held_out, scores, tokens = made()
    weights = (np.arange(len(scores)) % 4 > 0).astype(float)
    found = evidence_of(held_out, scores, np.arange(len(scores)), tokens=tokens, weights=weights)
    np.testing.assert_array_equal(found.scores, scores[weights > 0])
    with pytest.raises(ValueError, match="no row that counts"):
        evidence_of(held_out, scores, np.arange(len(scores)), weights=0 * weights)


def test_of_rows_without_answers_no_second_chance_is_counted() -> None:
    known = evidence()
    for cascade, prices in itertools.product(Cascade, (None, PRICES)):
        np.testing.assert_array_equal(known.curve(prices, cascade=cascade).cost, known.curve(prices).cost)
        assert not known.curve(prices, cascade=cascade).has_second_chances


@pytest.mark.parametrize("cascade", Cascade)
@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize("prices", [None, PRICES])
def test_every_point_is_what_the_policy_would_have_done_row_by_row(
    cascade: Cascade, is_guarded: bool, prices: Prices | None
) -> None:
    """Each row is decided by its rank, judged by the probability that its answer is right, and paid for as it came."""
    known = with_answers(300)
    curve = known.curve(prices, is_guarded=is_guarded, cascade=cascade)
    seen, scale = known.held_out, None if prices is None else known.priced(prices).scale
    assert seen.small_tokens is not None
    assert seen.large_tokens is not None

    def usd(price: TokenPrice, prompt: float, output: float) -> float:
        return float(price.input_usd * prompt + price.output_usd * output)

    for i, threshold in enumerate(curve.thresholds[:-1].tolist()):
        answered = first = 0
        score = spent = all_large = 0.0
        for row in range(300):
            prompt, out_small, out_large = known.tokens[row].tolist()
            gain, again = float(seen.score[row]), float(seen.p_large[row] - known.right[row])
            small_usd, large_usd, prefill_usd = 0.0, 1.0, 0.0
            if prices is not None and scale is not None:
                expected_small = usd(prices.small, prompt, seen.small_tokens[row])
                expected_large = usd(prices.large, prompt, seen.large_tokens[row])
                prefill_usd = usd(prices.small, prompt, 0)
                small_usd, large_usd = usd(prices.small, prompt, out_small), usd(prices.large, prompt, out_large)
                gain = float(scale.rank(np.array(gain), np.array(expected_large + prefill_usd - expected_small)))
                again = float(scale.rank(np.array(again), np.array(expected_large)))
            all_large += large_usd
            if gain >= threshold or (is_guarded and seen.ood[row] > 1):
                first, answered = first + 1, answered + 1
                score, spent = score + known.scores[row, 1], spent + large_usd + prefill_usd
                continue
            spent += small_usd
            has_failed = cascade is not Cascade.OFF and bool(known.failed[row])
            is_doubted = cascade is Cascade.CONFIDENCE and again >= threshold  # never where nobody judged: NaN
            if has_failed or is_doubted:
                answered, spent = answered + 1, spent + large_usd
            score += known.scores[row, 1 if has_failed or is_doubted else 0]
        assert curve.shares[i] == pytest.approx(answered / 300)
        assert curve.first_shares[i] == pytest.approx(first / 300)
        assert curve.quality[i] == pytest.approx(score / known.scores[:, 1].sum())
        expected = spent if prices is not None else float(answered)
        assert curve.cost[i] == pytest.approx(expected / all_large)


def test_all_curves_are_quick_enough_to_be_computed_at_start() -> None:
    known = with_answers(6_000)
    began = time.process_time()
    for is_guarded, cascade in itertools.product((True, False), Cascade):
        known.curve(PRICES, is_guarded=is_guarded, cascade=cascade)
    assert time.process_time() - began < 2  # some 0.3 s


def test_a_curve_is_computed_once_for_each_price_table() -> None:
    known = evidence()
    assert known.curve(PRICES) is known.curve(PRICES)
    assert known.curve(PRICES) is not known.curve()
    again = Prices(small=TokenPrice(input_usd=1e-7, output_usd=2e-7), large=PRICES.large)
    assert known.curve(again) is known.curve(PRICES)


def test_ranks_are_gains_by_expected_extra_cost_and_gains_alone_without_prices_or_tokens() -> None:
    known = evidence()
    np.testing.assert_array_equal(known.ranks(None), known.held_out.score)
    without = evidence(has_tokens=False)
    np.testing.assert_array_equal(without.ranks(PRICES), without.held_out.score)
    expected = np.stack([known.tokens[:, 0], known.held_out.small_tokens, known.held_out.large_tokens], axis=1)  # type: ignore[list-item]
    extra = row_costs(PRICES, expected, has_prefill=True).extra
    scale = known.priced(PRICES).scale
    assert scale is not None
    factor = np.clip(extra / extra.mean(), scale.low, scale.high)
    gain = known.held_out.score
    np.testing.assert_allclose(known.ranks(PRICES), np.where(gain > 0, gain / factor, gain * factor))


def test_rows_out_of_domain_go_large_in_the_guarded_curve_alone() -> None:
    known = evidence()
    far = known.held_out.ood > 1
    assert 0.05 < far.mean() < 0.15
    assert known.curve(is_guarded=True).shares[0] == pytest.approx(far.mean())
    assert known.curve(is_guarded=False).shares[0] == 0


def test_prices_make_the_same_quality_cheaper() -> None:
    """The knapsack order against the order of gains, both at the cost that they really have."""
    rng = np.random.default_rng(1)
    n = 6_000
    tokens = np.stack([np.full(n, 100.0), *(rng.lognormal(5, 1, (2, n)))])
    p_small = rng.random(n)
    scores = np.stack([rng.random(n) < p_small, np.ones(n)], axis=1).astype(float)
    held_out = Predictions(p_small, np.ones(n), np.zeros(n), 1 - p_small, tokens[1], tokens[2])
    known = evidence_of(held_out, scores, np.arange(n), tokens=tokens.T)
    by_rank = known.curve(PRICES).point_for(0.8)
    costs = known.priced(PRICES).costs
    goes = held_out.score >= known.curve().point_for(0.8).threshold
    by_gain = np.where(goes, costs.large, costs.small).sum() / costs.large.sum()
    assert by_rank.cost < 0.9 * by_gain
