"""What an outlook takes, against every choice there is."""

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.speculation import outlook as module
from engine.speculation.outlook import MARGIN, Outlook, StepPrices, Unlimited


def subsets(n: int) -> chain[tuple[int, ...]]:
    return chain.from_iterable(combinations(range(n), size) for size in range(n + 1))


@given(
    streams=st.integers(1, 8),
    step_s=st.floats(0.001, 0.1),
    node_s=st.floats(0.00001, 0.05),
    mask_s=st.floats(0.0, 0.005),
    nodes=st.lists(st.tuples(st.integers(-1, 6), st.floats(0.01, 1.0)), max_size=9),
    is_masked=st.booleans(),
)
def test_no_choice_of_nodes_yields_more_per_second_than_what_is_taken_best_first(
    streams: int,
    step_s: float,
    node_s: float,
    mask_s: float,
    nodes: list[tuple[int, float]],
    is_masked: bool,
) -> None:
    parents = [min(parent, i - 1) for i, (parent, _) in enumerate(nodes)]
    reaches: list[float] = []
    for parent, (_, p) in zip(parents, nodes, strict=True):
        reaches.append(p * (1.0 if parent < 0 else reaches[parent]))
    price_s = node_s + (mask_s if is_masked else 0.0)
    best = max(
        (streams + sum(reaches[i] for i in chosen)) / (step_s + len(chosen) * price_s)
        for chosen in subsets(len(nodes))
        if all(parents[i] < 0 or parents[i] in chosen for i in chosen)
    )
    outlook = Outlook(float(streams), step_s, StepPrices(node_s, node_s, mask_s=mask_s))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MARGIN", 1.0)
        for reach in sorted(reaches, reverse=True):
            outlook.take(reach, is_masked=is_masked)
    assert outlook.tokens / outlook.seconds == pytest.approx(best)


@given(
    tokens=st.floats(1, 64),
    seconds=st.floats(0.001, 1.0),
    few_s=st.floats(0.0001, 0.01),
    many_s=st.floats(0.0001, 0.01),
    n_few=st.integers(0, 6),
    reaches=st.lists(st.floats(0, 1), max_size=12),
    recent=st.tuples(st.floats(0, 64), st.floats(0, 1)),
)
def test_what_is_taken_raises_the_rate_and_costs_what_the_sum_of_its_prices_says(
    tokens: float,
    seconds: float,
    few_s: float,
    many_s: float,
    n_few: int,
    reaches: list[float],
    recent: tuple[float, float],
) -> None:
    prices = StepPrices(few_s, many_s, n_few, mask_s=0.001)
    outlook = Outlook(tokens, seconds, prices, recent)
    taken: list[float] = []
    for i, reach in enumerate(reaches):
        before, least = outlook.tokens / outlook.seconds, outlook.least_reach(is_masked=i % 2 == 1)
        is_taken = outlook.take(reach, is_masked=i % 2 == 1)
        assert is_taken == (reach > least) or reach == pytest.approx(least)
        if is_taken:
            taken.append(reach)
            if recent == (0.0, 0.0):
                assert outlook.tokens / outlook.seconds > before
    n = len(taken)
    assert outlook.n_nodes == n
    assert outlook.tokens == pytest.approx(tokens + sum(taken))
    expected_s = min(n, n_few) * few_s + max(0, n - n_few) * many_s + outlook.n_masked * 0.001
    assert outlook.seconds - seconds == pytest.approx(expected_s)
    assert prices.nodes_s(0, n, outlook.n_masked) == pytest.approx(expected_s)


def test_an_increment_must_be_worth_more_than_its_seconds() -> None:
    outlook = Outlook(2.0, 0.010, StepPrices(0.001, 0.001))
    assert outlook.worth(0.2 * MARGIN * 1.01, 0.001)
    assert not outlook.worth(0.2 * MARGIN * 0.99, 0.001)
    assert not outlook.worth(0.2 * MARGIN * 1.01, 0.001, n_nodes=1)
    assert outlook.worth(0.4 * MARGIN * 1.01, 0.001, n_nodes=1)
    assert outlook.loss(0.0, 0.001, n_nodes=1) == pytest.approx(0.002)
    assert outlook.loss(0.2, 0.001, n_nodes=1) == pytest.approx(0.001)
    assert 0.0 < outlook.loss(0.5, 0.001, n_nodes=1) < 0.001
    assert (outlook.tokens, outlook.seconds, outlook.n_nodes) == (2.0, 0.010, 0)


def test_seconds_that_are_spent_already_are_no_reason_to_take_less() -> None:
    outlook = Outlook(1.0, 0.010, StepPrices(0.001, 0.001))
    before = outlook.least_reach(is_masked=False)
    outlook.spend(0.010)
    assert outlook.least_reach(is_masked=False) == pytest.approx(before / 2)
    assert outlook.drafting_s == 0.010


def test_the_rate_of_recent_steps_counts_for_what_a_token_is_worth() -> None:
    prices = StepPrices(0.001, 0.001)
    fast = Outlook(1.0, 0.010, prices, recent=(30.0, 0.100))
    assert fast.least_reach(is_masked=False) > 2 * Outlook(1.0, 0.010, prices).least_reach(is_masked=False)


def test_what_having_any_node_costs_is_paid_by_all_together_or_none_is_kept() -> None:
    prices = StepPrices(0.0001, 0.0001, entry_s=0.002)
    for n, pays in ((1, False), (4, True)):
        outlook = Outlook(8.0, 0.010, prices)
        for _ in range(n):
            assert outlook.take(0.9, is_masked=True)
        assert outlook.pays is pays
        assert outlook.seconds == pytest.approx(0.012 + n * 0.0001)
        outlook.spend(0.001)
        outlook.drop()
        assert (outlook.tokens, outlook.n_nodes, outlook.n_masked) == (8.0, 0, 0)
        assert outlook.seconds == pytest.approx(0.011)
        assert outlook.pays


def test_a_round_that_is_to_bring_the_first_nodes_pays_for_having_any() -> None:
    outlook = Outlook(1.0, 0.010, StepPrices(0.0, 0.0, entry_s=0.009))
    assert outlook.worth(0.8, 0.0, n_nodes=0)
    assert not outlook.worth(0.8, 0.0, n_nodes=1)
    outlook.add(0.0, is_masked=False)
    assert outlook.worth(0.8, 0.0, n_nodes=1)


def test_an_unlimited_one_takes_what_never_pays_and_counts_it() -> None:
    outlook = Unlimited()
    assert outlook.take(0.0, is_masked=True)
    assert outlook.worth(0.0, 1e9, n_nodes=3)
    assert outlook.pays
    assert outlook.least_reach(is_masked=True) == 0.0
    assert outlook.loss(0.0, 1.0) == 0.0
    assert (outlook.n_nodes, outlook.n_masked) == (1, 1)
