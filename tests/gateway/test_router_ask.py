"""What a request asks of the router: headers, body, and both: applied or refused, never ignored."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.errors import ApiError
from gateway.openai.routing_ask import HEADERS, MEMBERS, check_ask, read_ask, routing_headers
from gateway.routing.ask import CASCADES, NOT_ASKED, RoutingAsk
from gateway.routing.catalogue import Wanted
from gateway.settings import Settings
from tests.gateway.server import GatewayServer
from tests.gateway.test_routing_eligibility import catalogue

numbers = st.floats(0, 1)
amounts = st.floats(0, 1e6)
values: dict[str, st.SearchStrategy[Any]] = {
    "quality": numbers,
    "cost": numbers,
    "max_cost_usd": amounts,
    "max_ttft_ms": amounts,
    "min_model": st.sampled_from(["small", "large"]),
    "session": st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=256),
    "route": st.from_regex(r"[A-Za-z0-9._:/-]{1,64}", fullmatch=True),
    "explain": st.booleans(),
    "explore": st.booleans(),
    "cascade": st.sampled_from(CASCADES),
}
asks = st.fixed_dictionaries({}, optional=values)
MOST_MS = 1e9
"""Longer than any limit on a time may be."""


def as_headers(asked: dict[str, Any]) -> dict[str, str]:
    by_member = {member: header for header, member in HEADERS.items()}
    words = {True: "on", False: "off"}
    return {by_member[name]: words[v] if isinstance(v, bool) else str(v) for name, v in asked.items()}


def test_every_member_has_a_header_and_a_strategy_here() -> None:
    assert set(HEADERS.values()) == set(MEMBERS) == set(values)


@given(asks)
def test_headers_and_body_ask_the_same(asked: dict[str, Any]) -> None:
    body = msgspec.json.decode(json.dumps(asked), type=RoutingAsk)
    assert read_ask(as_headers(asked), None) == read_ask({}, body) == read_ask(as_headers(asked), body) == body


@given(asks, asks)
def test_headers_and_body_add_up_or_are_refused(first: dict[str, Any], second: dict[str, Any]) -> None:
    body = msgspec.convert(second, RoutingAsk)
    if all(first[name] == second[name] for name in first.keys() & second.keys()):
        assert read_ask(as_headers(first), body) == msgspec.convert({**first, **second}, RoutingAsk)
        return
    with pytest.raises(ApiError) as caught:
        read_ask(as_headers(first), body)
    assert (caught.value.status, caught.value.detail.code) == (400, "router_conflict")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-router-quality", "1.01"),
        ("x-router-quality", "nan"),
        ("x-router-quality", "high"),
        ("x-router-cost", "-0.1"),
        ("x-router-max-cost-usd", "inf"),
        ("x-router-max-ttft-ms", "1s"),
        *(
            ("x-router-max-ttft-ms", text)
            for text in ("1_000", "+1", ".5", "1.", "01", "0x10", "1 0", "true", '"1"', "")
        ),
        ("x-router-min-model", "huge"),
        ("x-router-session", ""),
        ("x-router-session", "x" * 257),
        ("x-router-route", "two words"),
        ("x-router-explain", "perhaps"),
        ("x-router-cascade", "always"),
        ("x-router-qualty", "0.9"),
    ],
)
def test_a_wrong_header_is_refused_by_name(header: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_ask({header: value}, None)
    assert (caught.value.status, caught.value.detail.param) == (400, header)
    assert header in caught.value.detail.message


@given(st.text(alphabet="0123456789+-._eExn ", max_size=8))
def test_a_number_in_a_header_is_one_in_json_and_no_other(text: str) -> None:
    try:
        in_json = float(json.loads(text))
    except (ValueError, TypeError):
        in_json = -1.0
    if 0 <= in_json <= MOST_MS:
        assert read_ask({"x-router-max-ttft-ms": text}, None).max_ttft_ms == in_json
        return
    with pytest.raises(ApiError, match="x-router-max-ttft-ms"):
        read_ask({"x-router-max-ttft-ms": text}, None)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=40))
def test_a_session_in_a_header_is_the_same_as_in_the_body(name: str) -> None:
    headers = routing_headers([(b"x-router-session", name.encode())])
    assert read_ask(headers, RoutingAsk(session=name)).session == name


def test_bytes_that_are_no_utf_8_are_read_as_latin_1() -> None:
    assert routing_headers([(b"x-router-session", b"caf\xe9")]) == {"x-router-session": "caf\xe9"}


def test_only_headers_of_the_family_are_read_and_a_second_one_does_not_get_lost() -> None:
    raw = [(b"X-Router-Quality", b"0.5"), (b"accept", b"*/*"), (b"x-router-route", b"a"), (b"x-router-route", b"b")]
    headers = routing_headers(raw)
    assert headers == {"x-router-quality": "0.5", "x-router-route": "a, b"}
    with pytest.raises(ApiError, match="x-router-route"):
        read_ask(headers, None)


@pytest.mark.parametrize("alias", ["small", "large"])
@pytest.mark.parametrize(
    "asked", [{"quality": 0.9}, {"cost": 0.0}, {"max_cost_usd": 1.0}, {"max_ttft_ms": 1.0}, {"cascade": "validation"}]
)
def test_a_model_by_name_leaves_nothing_to_wish(alias: str, asked: dict[str, Any]) -> None:
    models = catalogue()
    with pytest.raises(ApiError) as caught:
        check_ask(RoutingAsk(**asked), models.resolve(alias), "confidence")
    (name,) = asked
    assert (caught.value.detail.code, caught.value.detail.param) == ("router_conflict", f"router.{name}")
    check_ask(RoutingAsk(**asked), models.resolve("auto"), "confidence")


def test_what_is_said_of_the_request_itself_goes_with_any_model() -> None:
    ask = RoutingAsk(session="a", route="b", explain=True, explore=False, cascade="off", min_model="small")
    for name in ("small", "large", "auto", "auto-cost"):
        check_ask(ask, catalogue().resolve(name), "off")
    check_ask(RoutingAsk(min_model="large"), catalogue().resolve("large"), "off")
    with pytest.raises(ApiError, match="min_model"):
        check_ask(RoutingAsk(min_model="large"), catalogue().resolve("small"), "off")


def test_a_budget_below_the_only_model_that_is_left_is_refused() -> None:
    auto = catalogue().resolve("auto")
    with pytest.raises(ApiError, match="leave one of them out") as caught:
        check_ask(RoutingAsk(min_model="large", cost=0.5), auto, "off")
    assert (caught.value.detail.code, caught.value.detail.param) == ("router_conflict", "router.cost")
    check_ask(RoutingAsk(min_model="large", cost=1.0), auto, "off")
    check_ask(RoutingAsk(min_model="small", cost=0.5), auto, "off")


@pytest.mark.parametrize("allowed", CASCADES)
@pytest.mark.parametrize("asked", CASCADES)
def test_a_cascade_goes_no_further_than_the_server(asked: Any, allowed: str) -> None:
    auto: Wanted = catalogue().resolve("auto")
    if CASCADES.index(asked) <= CASCADES.index(allowed):
        check_ask(RoutingAsk(cascade=asked), auto, allowed)
        return
    with pytest.raises(ApiError, match=f"goes no further than '{allowed}'"):
        check_ask(RoutingAsk(cascade=asked), auto, allowed)


def test_the_setting_knows_the_same_cascades() -> None:
    assert Settings().routing.cascade in CASCADES
    assert not NOT_ASKED.cascade


# ---- on a real server ---------------------------------------------------------------------------------------------


def test_the_openai_client_sends_it_as_extra_body_or_as_headers(routed_server: GatewayServer) -> None:
    fields: Any = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    with routed_server.client() as client:
        body = client.chat.completions.create(extra_body={"router": {"quality": 1, "route": "docs"}}, **fields)
        headers = client.chat.completions.create(
            extra_headers={"x-router-quality": "1.0", "X-Router-Route": "docs"}, **fields
        )
    for reply in (body, headers):
        router: Any = reply.router
        assert (router["model"], router["route"]) == ("large", "docs"), "quality 1 is the large model's"


@pytest.mark.parametrize(
    ("router", "param"),
    [
        ({"quality": 1.5}, "router.quality"),
        ({"quality": "0.5"}, "router.quality"),
        ({"qualty": 0.5}, "router"),
        ({"route": "two words"}, "router.route"),
        ({"max_ttft_ms": -1}, "router.max_ttft_ms"),
        (0.9, "router"),
    ],
)
def test_a_wrong_body_is_refused_by_name(routed_server: GatewayServer, router: Any, param: str) -> None:
    reply = routed_server.chat(model="auto", router=router)
    assert (reply.status, reply.json["error"]["param"]) == (400, param)


def test_a_header_that_contradicts_the_body_is_refused(routed_server: GatewayServer) -> None:
    reply = routed_server.chat({"x-router-quality": "0.5"}, model="auto", router={"quality": 0.6})
    assert (reply.status, reply.json["error"]["code"]) == (400, "router_conflict")
    assert routed_server.chat({"x-router-quality": "0.5"}, model="auto", router={"quality": 0.5}).status == 200


def test_a_wish_beside_a_model_by_name_is_refused(routed_server: GatewayServer) -> None:
    reply = routed_server.chat({"x-router-cost": "0.5"}, model="small")
    assert (reply.status, reply.json["error"]["code"]) == (400, "router_conflict")
    assert routed_server.chat({"x-router-session": "mine"}, model="small").status == 200


def test_numbers_win_over_names(routed_server: GatewayServer) -> None:
    def chosen(model: str, **router: Any) -> tuple[str, str]:
        reply = routed_server.chat(model=model, router=router)
        return reply.json["router"]["model"], reply.json["router"]["target"]

    assert chosen("auto-cost", quality=1) == ("large", "auto-cost")
    assert chosen("auto-quality", quality=0) == ("small", "auto-quality")


def test_wishes_hold_where_one_model_is_left_and_what_it_breaks_is_said(routed_server: GatewayServer) -> None:
    wishes: Any = {"min_model": "large", "max_cost_usd": 0, "explain": True}
    for reply in (routed_server.chat(model="auto", router=wishes), routed_server.decide(model="auto", router=wishes)):
        router = reply.json.get("router", reply.json)
        assert (reply.status, router["choice"], router["reason"]) == (200, "large", "only_eligible")
        assert router["exceeds"] == ["over_budget"]
        assert router["explain"]["expected"]["large"]["cost_usd"] > 0
    for conflict in ({"quality": 1.0, "cost": 0.3}, {"cost": 0.3}):
        reply = routed_server.chat(model="auto", router={"min_model": "large", **conflict})
        assert (reply.status, reply.json["error"]["code"]) == (400, "router_conflict")
