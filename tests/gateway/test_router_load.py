"""The engine's load as the gateway counts it, what it teaches about waiting, and what decisions are told of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import ModelInfo, Prepared
from gateway.prices import ModelPrice, PriceTable
from gateway.routing.ask import RoutingAsk
from gateway.routing.catalogue import Catalogue, Target, Wanted
from gateway.routing.eligibility import Eligibility
from gateway.routing.load import Load, Ticket
from gateway.routing.offers import Offers, Prefill
from gateway.routing.question import Question
from gateway.routing.sessions import Sessions
from router_model.facts import RequestFacts
from tests.gateway.server import GatewayServer

PRICES = PriceTable(
    version="test",
    models={
        "small": ModelPrice(input=1.0, cached_input=0.25, output=4.0),
        "large": ModelPrice(input=10.0, cached_input=2.0, output=40.0),
    },
)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def catalogue() -> Catalogue:
    def info(name: str, n_parameters: int) -> ModelInfo:
        return ModelInfo(name, f"/m/{name}", n_parameters, 100, 4096, "float32", 1, 1, 16, "0123456789abcdef")

    return Catalogue([info("small", 100), info("large", 400)])


def load(clock: Clock) -> Load:
    return Load(catalogue().models, overload_wait_s=2.0, clock=clock)


steps = st.lists(
    st.tuples(st.sampled_from(["open", "first", "close"]), st.sampled_from(["small", "large"]), st.integers(0, 7)),
    max_size=40,
)


@given(steps)
def test_counts_are_those_of_the_open_tickets(todo: list[tuple[str, str, int]]) -> None:
    clock = Clock()
    counted = load(clock)
    tickets = list[Ticket]()
    for what, alias, number in todo:
        clock.now_s += 0.01
        if what == "open":
            tickets.append(counted.submitted(alias, 10 + number, cached_tokens=number, rows=1 + number % 3))
        elif tickets and what == "first":
            counted.first_token(tickets[number % len(tickets)])
        elif tickets:
            counted.finished(tickets[number % len(tickets)], cached_tokens=number)
    found = counted.counts()
    for alias in ("small", "large"):
        ours = [ticket for ticket in tickets if ticket.alias == alias and not ticket.is_closed]
        waiting = [ticket for ticket in ours if ticket.ttft_s is None]
        assert found[f"{alias}_waiting"] == len(waiting)
        assert found[f"{alias}_running"] == len(ours) - len(waiting)
        assert found[f"{alias}_prefill_tokens"] == sum(ticket.uncached_tokens for ticket in waiting)
    assert counted.is_idle == all(ticket.is_closed for ticket in tickets)
    for ticket in tickets:
        counted.finished(ticket)
    assert counted.is_idle
    assert not any(counted.counts().values())
    assert counted.snapshot("small").prefill_tokens == 0


def test_the_other_models_work_counts_by_its_size() -> None:
    counted = load(Clock())
    counted.submitted("large", 100)
    running = counted.submitted("large", 100, rows=3)
    counted.first_token(running)
    seen = counted.snapshot("small")
    assert (seen.waiting, seen.running, seen.prefill_tokens, seen.decode_rows) == (4, 4, 400, 12)
    seen = counted.snapshot("large")
    assert (seen.waiting, seen.running, seen.prefill_tokens, seen.decode_rows) == (1, 1, 100, 3)


def test_waits_are_learned_from_what_happened() -> None:
    clock = Clock()
    counted = load(clock)
    assert counted.ttft_s("large", 100) is None
    for n in range(60):  # a millisecond a token
        ticket = counted.submitted("large", 200 * (1 + n % 7))
        clock.now_s += 0.2 * (1 + n % 7)
        counted.first_token(ticket)
        counted.finished(ticket)
    assert counted.ttft_s("large", 1000) == pytest.approx(1.0, rel=0.1)
    assert counted.ttft_s("small", 1000) is None, "models learn apart"
    cancelled = counted.submitted("large", 10)
    clock.now_s += 1000
    counted.finished(cancelled)
    assert counted.ttft_s("large", 1000) == pytest.approx(1.0, rel=0.1), "what had no first token teaches nothing"


def test_pressure_begins_at_the_bound_and_is_full_at_twice_the_bound() -> None:
    counted = load(Clock())
    assert [counted.pressure(s) for s in (None, 0.0, 2.0, 3.0, 4.0, 40.0)] == [0, 0, 0, 0.5, 1, 1]


# ---- what decisions are told ----------------------------------------------------------------------------------------


def question(prompt: int = 100, warm: dict[str, int] | None = None, salt: str = "s", **fields: Any) -> Question:
    sessions = Sessions()
    key = sessions.find("a", None, [b"hi"])
    if warm is not None:
        sessions.answered(key, "large", scope="s", prompts=warm)
        key = sessions.find("a", None, [b"hi", b"hello", b"more"])
    return Question(
        wanted=Wanted("auto", target=Target.AUTO),
        eligibility=Eligibility(("small", "large")),
        ask=RoutingAsk(),
        text=lambda: "",
        facts=RequestFacts,
        prompts={"small": [1] * prompt, "large": [1] * prompt},
        salt=salt,
        session=key,
        arrived_s=100.0,
        **fields,
    )


def prepared(cached: int, prompt: int = 100) -> Prepared:
    return Prepared("1", "h", b"", (1, 2, 0), 0.0, 0.0, prompt, cached, prompt - cached, 0.0, 0.0)


def test_a_cold_request_pays_for_its_whole_prompt() -> None:
    clock = Clock()
    found = Offers(catalogue(), PRICES, load(clock), clock).circumstances(question(n=3))
    assert found.small.prompt_usd == pytest.approx(100e-6)
    assert found.large.prompt_usd == pytest.approx(1000e-6)
    assert found.large.output_usd_per_token == pytest.approx(3 * 40e-6), "for each answer that is asked for"
    assert (found.small.warm_tokens, found.large.warm_tokens, found.route_usd, found.pressure) == (0, 0, 0, 0)
    assert found.small.ttft_s is None


def test_whole_pages_of_the_last_turn_are_warm_and_save_their_price() -> None:
    clock = Clock()
    offers = Offers(catalogue(), PRICES, load(clock), clock)
    found = offers.circumstances(question(warm={"large": 70}))
    assert (found.small.warm_tokens, found.large.warm_tokens) == (0, 64)
    assert found.large.warm_usd == pytest.approx(64 * 8e-6)
    assert found.large.prompt_usd == pytest.approx(1000e-6 - found.large.warm_usd)
    assert offers.circumstances(question(warm={"large": 70}, salt="t")).large.warm_tokens == 0
    assert offers.circumstances(question(warm={"large": 96}, prompt=64)).large.warm_tokens == 48, "not the last token"


def test_after_its_prefill_the_small_model_is_as_warm_as_the_engine_says() -> None:
    clock = Clock()
    counted = load(clock)
    offers = Offers(catalogue(), PRICES, counted, clock)
    prefill = Prefill(prepared(cached=80), counted.submitted("small", 100))
    found = offers.circumstances(question(), prefill)
    assert found.small.warm_tokens == 80
    assert found.small.prompt_usd == pytest.approx((20 + 80 / 4) * 1e-6)
    assert found.route_usd == found.small.prompt_usd, "large pays for the prefill besides"


def test_times_count_from_the_arrival() -> None:
    clock = Clock()
    counted = load(clock)
    for _ in range(60):
        for alias, s in (("small", 0.1), ("large", 0.5)):
            ticket = counted.submitted(alias, 100)
            clock.now_s += s
            counted.first_token(ticket)
            counted.finished(ticket)
    offers = Offers(catalogue(), PRICES, counted, clock)
    asked = question()
    clock.now_s = 100.2  # 0.2 s after the arrival
    found = offers.circumstances(asked)
    assert found.small.ttft_s == pytest.approx(0.3, abs=0.02)
    assert found.large.ttft_s == pytest.approx(0.7, abs=0.02)
    prefill = Prefill(prepared(0), counted.submitted("small", 100))
    counted.finished(prefill.ticket)
    clock.now_s = 100.25  # most of the small model's wait is behind us, the large one's begins
    found = offers.circumstances(asked, prefill)
    assert found.small.ttft_s == pytest.approx(0.3, abs=0.02)
    assert found.large.ttft_s == pytest.approx(0.75, abs=0.02)


# ---- on a real server ---------------------------------------------------------------------------------------------


def teach(server: GatewayServer) -> None:
    for i in range(80):
        server.chat(model=("small", "large")[i % 2], max_tokens=1, messages=[{"role": "user", "content": "x" * i}])


def test_a_server_learns_to_predict_and_says_so(routed_server: GatewayServer) -> None:
    for i in range(80):
        routed_server.chat(
            model=("small", "large")[i % 2], max_tokens=1, messages=[{"role": "user", "content": "x" * i}]
        )
    router = routed_server.chat(model="auto", router={"explain": True}).json["router"]
    for alias in ("small", "large"):
        assert 0 < router["explain"]["expected"][alias]["ttft_ms"] < 60_000
    assert set(router["explain"]["load"]) == {
        f"{alias}_{what}" for alias in ("small", "large") for what in ("waiting", "running", "prefill_tokens")
    }
    assert router["expected_ttft_ms"] == router["explain"]["expected"][router["model"]]["ttft_ms"]


def test_a_limit_on_time_is_held_once_times_are_known(routed_server: GatewayServer) -> None:
    for i in range(80):
        routed_server.chat(
            model=("small", "large")[i % 2], max_tokens=1, messages=[{"role": "user", "content": "x" * i}]
        )
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "as quick as can be"}], "max_tokens": 2}
    unlimited = routed_server.chat(model="auto-quality", **asked).json["router"]
    assert (unlimited["model"], unlimited["reason"]) == ("large", "score_above_threshold")
    limited = routed_server.chat(model="auto-quality", router={"max_ttft_ms": 0.01}, **asked)
    assert limited.status == 200, "a limit chooses, it does not refuse"
