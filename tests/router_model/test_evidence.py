import numpy as np
import pytest

from router_model.costs import Prices, TokenPrice, row_costs
from router_model.evidence import Evidence, evidence_of
from router_model.logistic import Floats
from router_model.model import Predictions

PRICES = Prices(small=TokenPrice(input_usd=1e-7, output_usd=2e-7), large=TokenPrice(input_usd=1e-6, output_usd=3e-6))


def made(n: int = 1_000, *, has_tokens: bool = True, seed: int = 0) -> tuple[Predictions, Floats, Floats]:
    rng = np.random.default_rng(seed)
    p_small, p_large = rng.random(n), 0.5 + 0.5 * rng.random(n)
    scores = np.stack([rng.random(n) < p_small, rng.random(n) < p_large], axis=1).astype(float)
    tokens = rng.integers(10, 400, (n, 3)).astype(float)
    expected = (tokens[:, 1] * 0.9, tokens[:, 2] * 1.1) if has_tokens else (None, None)
    held_out = Predictions(p_small, p_large, rng.uniform(0, 1.1, n), p_large - p_small, *expected)
    return held_out, scores, tokens


def evidence(**options: bool) -> Evidence:
    held_out, scores, tokens = made(has_tokens=options.get("has_tokens", True))
    return evidence_of(held_out, scores, np.arange(len(scores)), tokens=tokens, has_prefill=True)


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
    before = evidence()
    after = Evidence.from_arrays(before.arrays(), before.meta)
    for prices in (None, PRICES):
        for is_guarded in (True, False):
            one, two = (each.curve(prices, is_guarded=is_guarded) for each in (before, after))
            for name in ("thresholds", "shares", "lower", "quality_lower", "cost_upper"):
                np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


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
