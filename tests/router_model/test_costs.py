import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.circumstances import Circumstances, Offer
from router_model.costs import CostScale, Prices, RowCosts, TokenPrice, request_costs, row_costs

PRICES = Prices(small=TokenPrice(input_usd=1.0, output_usd=2.0), large=TokenPrice(input_usd=10.0, output_usd=30.0))


def test_a_row_costs_its_tokens_and_the_routers_prefill() -> None:
    tokens = np.array([[100.0, 7.0, 5.0], [10.0, 1.0, 2.0]])
    costs = row_costs(PRICES, tokens, has_prefill=True)
    np.testing.assert_array_equal(costs.small, [114, 12])
    np.testing.assert_array_equal(costs.large, [1150, 160])
    np.testing.assert_array_equal(costs.route, [100, 10])
    np.testing.assert_array_equal(costs.extra, costs.large + costs.route - costs.small)
    np.testing.assert_array_equal(row_costs(PRICES, tokens, has_prefill=False).route, [0, 0])


def test_what_nobody_counted_is_the_mean_of_what_was_counted() -> None:
    tokens = np.array([[100.0, np.nan, 5.0], [np.nan, np.nan, 15.0], [300.0, np.nan, np.nan]])
    costs = row_costs(PRICES, tokens, has_prefill=False)
    filled = row_costs(PRICES, np.array([[100.0, 200, 5], [200, 200, 15], [300, 200, 10]]), has_prefill=False)
    np.testing.assert_allclose(costs.large, filled.large)
    np.testing.assert_allclose(costs.small, filled.small)  # 200 is typical: of small's answers none was counted


def test_a_request_costs_what_its_offers_say() -> None:
    circumstances = Circumstances(
        small=Offer(prompt_usd=3.0, output_usd_per_token=0.5),
        large=Offer(prompt_usd=20.0, output_usd_per_token=4.0),
        route_usd=2.0,
    )
    costs = request_costs(circumstances, 10, 5)
    assert (costs.small[0], costs.large[0], costs.route[0], costs.extra[0]) == (8, 40, 2, 34)


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.integers(1, 2_000))
def test_no_request_is_expected_to_cost_more_than_it_allows(small: float, large: float, allowed: int) -> None:
    offers = {
        "small": Offer(prompt_usd=3.0, output_usd_per_token=0.5),
        "large": Offer(prompt_usd=20.0, output_usd_per_token=4.0),
    }
    costs = request_costs(Circumstances(**offers, max_tokens=allowed), small, large)
    free = request_costs(Circumstances(**offers), small, large)
    assert costs.small[0] == min(free.small[0], 3 + 0.5 * allowed)
    assert costs.large[0] == min(free.large[0], 20 + 4 * allowed)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(ValueError, match="use finite ones"):
        TokenPrice(input_usd=0.0, output_usd=price)


def test_the_ranking_is_the_cheapest_way_to_any_gain() -> None:
    """Against a brute force over every subset: no cheaper set of requests gains as much as a prefix of the ranking."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        gain, extra = rng.random(8), rng.uniform(0.5, 2.0, 8)
        scale = CostScale(float(extra.mean()))
        order = np.argsort(-scale.rank(gain, extra))
        subsets = np.array([[(i >> j) & 1 for j in range(8)] for i in range(256)])
        gains, costs = subsets @ gain, subsets @ extra
        for k in range(9):
            prefix_gain, prefix_cost = gain[order[:k]].sum(), extra[order[:k]].sum()
            assert costs[gains >= prefix_gain - 1e-9].min() >= prefix_cost - 1e-9


@given(
    st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=20),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_equal_costs_leave_the_order_of_gains_and_a_dearer_request_never_ranks_higher(
    gains: list[float], cheap: float, more: float
) -> None:
    gain, scale = np.array(gains), CostScale(1.0)
    alone = scale.rank(gain, np.ones(len(gain)))
    np.testing.assert_allclose(alone, gain)
    low, high = scale.rank(gain, np.full(len(gain), cheap)), scale.rank(gain, np.full(len(gain), cheap + more))
    assert (high <= low + 1e-12).all()
    assert (np.sign(low) == np.sign(gain)).all()
    assert (np.abs(low) <= 8).all()


def test_a_dearer_request_than_training_saw_ranks_like_the_dearest_it_saw() -> None:
    scale = CostScale.of(np.linspace(1.0, 3.0, 1_000))
    assert scale is not None
    assert (scale.low, scale.high) == pytest.approx((0.51, 1.49))
    assert scale.rank(np.array(0.4), np.array(100.0)) == scale.rank(np.array(0.4), np.array(3.0))
    assert CostScale.of(np.array([-1.0, 0.5])) is None


def test_the_scale_needs_a_large_model_that_is_dearer() -> None:
    costs = RowCosts(np.array([2.0]), np.array([1.0]), np.array([0.0]))
    assert CostScale.of(costs.extra) is None


@given(st.floats(-1, 1), st.floats(-10, 1e6), st.floats(1e-6, 1e3))
def test_one_gain_ranks_as_it_does_among_many(gain: float, extra: float, mean: float) -> None:
    scale = CostScale(mean, 0.25, 4.0)
    assert scale.rank_one(gain, extra) == float(scale.rank(np.array(gain), np.array(extra)))
