"""What a request costs is the sum of everything computed for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.prices import ModelPrice, PriceTable, Work, WorkKind, bundled_prices

prices = st.builds(ModelPrice, *[st.floats(0, 100)] * 3)
tables = st.builds(
    PriceTable, version=st.just("test"), models=st.fixed_dictionaries({"small": prices, "large": prices})
)
tokens = st.integers(0, 10**6)
works = st.lists(
    st.builds(
        Work,
        model=st.sampled_from(["small", "large"]),
        kind=st.sampled_from(list(WorkKind)),
        input_tokens=tokens,
        cached_tokens=tokens,
        output_tokens=tokens,
    ),
    max_size=6,
)


@given(tables, works)
def test_the_parts_add_up_to_the_whole(table: PriceTable, work: list[Work]) -> None:
    cost = table.request_cost(work)
    parts = cost.answer_usd + cost.route_usd + cost.discarded_usd + cost.draft_usd
    assert cost.total_usd == pytest.approx(parts)
    assert cost.total_usd == pytest.approx(sum(table.request_cost([piece]).total_usd for piece in work))


@given(tables, works, tokens)
def test_more_tokens_never_cost_less(table: PriceTable, work: list[Work], more: int) -> None:
    extra = Work(model="small", kind=WorkKind.DRAFT, output_tokens=more)
    assert table.request_cost([*work, extra]).total_usd >= table.request_cost(work).total_usd


@given(tables, tokens, tokens)
def test_an_answer_by_the_large_model_saves_nothing(table: PriceTable, prompt: int, output: int) -> None:
    answer = Work(model="large", kind=WorkKind.ANSWER, input_tokens=prompt, output_tokens=output)
    route = Work(model="small", kind=WorkKind.ROUTE, input_tokens=prompt)
    cost = table.request_cost([route, answer])
    assert cost.cost_if_large_usd == pytest.approx(cost.answer_usd)
    assert cost.total_usd >= cost.cost_if_large_usd


def test_a_worked_example() -> None:
    table = PriceTable(version="x", models={"small": ModelPrice(1, 0.5, 4), "large": ModelPrice(10, 5, 40)})
    cost = table.request_cost(
        [
            Work(model="small", kind=WorkKind.ROUTE, input_tokens=1_000_000),
            Work(model="small", kind=WorkKind.DRAFT, output_tokens=250_000),
            Work(
                model="large", kind=WorkKind.ANSWER, input_tokens=100_000, cached_tokens=200_000, output_tokens=100_000
            ),
        ]
    )
    assert (cost.route_usd, cost.draft_usd, cost.answer_usd) == (1.0, 1.0, 6.0)
    assert cost.version == "x"


def test_a_model_without_a_price_is_named() -> None:
    with pytest.raises(LookupError, match=r"\[prices\.models\.medium\]"):
        bundled_prices().request_cost([Work(model="medium", kind=WorkKind.ANSWER)])
