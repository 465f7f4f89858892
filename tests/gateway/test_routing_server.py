"""`auto` with a trained router, on a real server: what is decided, what is computed, what is kept."""

import contextlib
import json
import socket
import sqlite3
from typing import Any

import pytest

from gateway.prices import bundled_prices
from router_model.features import Features, Kind
from tests.gateway.server import GatewayServer

PROMPT = [{"role": "user", "content": "how many question marks are there in this long question " * 5}]


def is_idle(server: GatewayServer) -> bool:
    gauges = ("num_requests_running", "num_requests_waiting", "kv_blocks_used", "held")
    return all(server.engine(model)[name] == 0 for model in ("small", "large") for name in gauges)


def test_a_request_that_stays_small_continues_the_prefill(routed_server: GatewayServer) -> None:
    before = routed_server.engine("small")
    reply = routed_server.chat(model="auto", messages=PROMPT, max_tokens=5, ignore_eos=True, cache_salt="stays")
    after = routed_server.engine("small")
    prompt_tokens = reply.json["usage"]["prompt_tokens"]
    assert reply.json["router"]["model"] == "small"
    assert after["prompt_tokens_computed"] - before["prompt_tokens_computed"] == prompt_tokens, "once, not twice"
    assert after["prompt_tokens_cached"] == before["prompt_tokens_cached"]
    assert after["prepared"] == before["prepared"] + 1
    assert after["resumed"] == before["resumed"] + 1
    assert is_idle(routed_server)


def cost_without_drafts(body: Any) -> float:
    """What a request cost but for the tokens that the small model drafted for it, of which there may be any number."""
    speculation = body["usage"]["completion_tokens_details"].get("speculation", {"by_proposer": {}})
    drafted = speculation["by_proposer"].get("draft_model", {"drafted": 0})["drafted"]
    cost: float = body["router"]["cost_usd"]
    return cost - drafted * bundled_prices().price("small").output / 1e6


def test_a_request_that_goes_large_pays_for_the_routers_prefill(routed_server: GatewayServer) -> None:
    asked = {"messages": PROMPT, "max_tokens": 5, "ignore_eos": True}
    routed = routed_server.chat(model="auto-quality", cache_salt="one", **asked).json
    explicit = routed_server.chat(model="large", cache_salt="two", **asked).json
    router = routed["router"]
    assert router["model"] == "large"
    assert cost_without_drafts(explicit) == pytest.approx(router["cost_if_large_usd"])
    assert cost_without_drafts(routed) > cost_without_drafts(explicit)
    routed_server.until(lambda: is_idle(routed_server))


def test_what_is_clear_beforehand_computes_no_prefill(routed_server: GatewayServer) -> None:
    said: list[Any] = [{"role": "user", "content": "call something, and stay with it"}]
    routed_server.chat(model="large", messages=said)
    call = {"id": "c1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    said += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "pong"}]
    before = routed_server.engine("small")["prepared"]
    inside = routed_server.chat(model="auto", messages=said).json["router"]
    assert (inside["model"], inside["reason"], inside["early"]) == ("large", "pinned", True)
    assert routed_server.engine("small")["prepared"] == before
    late = routed_server.chat(model="auto-quality", messages=PROMPT).json["router"]
    assert (late["model"], late["early"]) == ("large", False)
    assert routed_server.engine("small")["prepared"] == before + 1


def test_the_evidence_is_returned(routed_server: GatewayServer) -> None:
    reply = routed_server.chat(model="auto", messages=PROMPT)
    router = reply.json["router"]
    assert router["policy"] == "state-router-2"
    assert router["reason"] == "score_below_threshold"
    assert router["score"] < router["threshold"]
    assert 0 <= router["p_small"] <= 1
    assert 0 <= router["p_large"] <= 1
    assert router["propensity"] == 1.0
    assert router["overhead_ms"] > 0
    for name in ("score", "threshold", "propensity"):
        assert float(reply.headers[f"x-router-{name}"]) == pytest.approx(router[name], rel=1e-4)


def test_routed_answers_are_those_of_the_model_that_was_chosen(routed_server: GatewayServer) -> None:
    asked = {"messages": PROMPT, "max_tokens": 20, "temperature": 0}
    routed = routed_server.chat(model="auto", **asked).json
    explicit = routed_server.chat(model="small", **asked).json
    assert routed["choices"] == explicit["choices"]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_share_one_prefill(routed_server: GatewayServer, n: int, stream: bool) -> None:
    reply = routed_server.chat(model="auto", messages=PROMPT, n=n, stream=stream, max_tokens=6)
    assert reply.status == 200
    routed_server.until(lambda: is_idle(routed_server))


def test_a_refused_constraint_releases_the_prefill(routed_server: GatewayServer) -> None:
    reply = routed_server.chat(model="auto", messages=PROMPT, structured_outputs={"regex": "(a"})
    assert reply.status == 400
    routed_server.until(lambda: is_idle(routed_server), timeout_s=1.0)


def test_strict_parameters_refuse_what_is_not_known(routed_server: GatewayServer) -> None:
    reply = routed_server.chat(reasoning_effort="low")
    assert (reply.status, reply.json["error"]["param"]) == (400, "reasoning_effort")


def test_each_answered_request_leaves_one_row_and_its_decision(routed_server: GatewayServer) -> None:
    replies = [
        routed_server.chat(model="auto", messages=PROMPT, metadata={"team": "blue"}, user="ada"),
        routed_server.chat(model="large", stream=True),
        routed_server.chat(model="small", structured_outputs={"choice": ["yes", "no"]}),
    ]
    decisions = [reply.headers["x-router-decision-id"] for reply in replies]

    def rows() -> list[sqlite3.Row]:
        with contextlib.closing(sqlite3.connect(routed_server.log.parent / "pointsman.sqlite3")) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                "SELECT d.*, r.status, r.stream, r.key_id AS key, r.metadata, r.user, r.constraint_kind,"
                " r.valid AS is_valid, r.cost_usd AS cost, r.trace_id"
                " FROM decisions d JOIN requests r ON d.request_id = r.id"
            ).fetchall()
        ours = {row["id"].replace("-", ""): row for row in found}
        return [ours[key] for decision in decisions if (key := decision.replace("-", "")) in ours]

    routed_server.until(lambda: len(rows()) == 3)
    auto, large, small = rows()
    assert [row["model_served"] for row in (auto, large, small)] == ["small", "large", "small"]
    assert [row["reason"] for row in (large, small)] == ["explicit", "explicit"]
    assert auto["propensity"] == 1.0
    assert Features.unpack(auto["features"]).kind is Kind.STATE
    assert len(auto["session_hash"]) == 32
    assert json.loads(auto["wanted"]) == {"quality": 0.0}
    assert (auto["calibrated"], auto["early"], auto["escalated"]) == (1, 0, 0)
    assert set(json.loads(auto["expected_cost_usd"])) == {"small", "large"}
    assert json.loads(auto["load"])["small_waiting"] >= 0
    assert auto["threshold"] > auto["score"]
    assert (json.loads(auto["metadata"]), auto["user"]) == ({"team": "blue"}, "ada")
    assert (large["stream"], large["status"]) == (1, 200)
    assert (small["constraint_kind"], small["is_valid"]) == ("choice", 1)
    assert auto["is_valid"] is None
    assert all(row["key"] and row["trace_id"] and row["ttft_s"] > 0 for row in (auto, large, small))
    assert auto["cost"] == pytest.approx(replies[0].json["router"]["cost_usd"])


def test_a_disconnect_during_the_routers_prefill_frees_it(routed_server: GatewayServer) -> None:
    body = json.dumps({"model": "auto", "messages": PROMPT * 15, "max_tokens": 50, "ignore_eos": True}).encode()
    host, port = routed_server.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {routed_server.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    prepared = routed_server.engine("small")["prepared"]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        routed_server.until(lambda: not is_idle(routed_server) or routed_server.engine("small")["prepared"] > prepared)
    assert routed_server.until(lambda: is_idle(routed_server)) < 1.0
