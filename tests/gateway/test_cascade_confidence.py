"""The second chance by confidence, with a router that has learned something of answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.prices import bundled_prices
from gateway.routing.policy_source import pair_prices
from router_model.artefact import RouterArtefact
from router_model.options import Cascade
from router_model.policy import Policy, RouteOptions
from tests.gateway.server import Checkpoints, GatewayServer, run_server
from tests.gateway.test_cascade import ASKED, chunks, environment, escalations, is_idle, said, streamed
from tests.gateway.test_cascade_faults import sqlite_rows

WHOLE: dict[str, Any] = {"messages": ASKED, "structured_outputs": {"regex": "[a-z]{24}"}, "max_tokens": 60}
"""An answer that ends in order."""


@pytest.fixture(scope="module")
def doubting(
    checkpoints: Checkpoints, judging_router: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """A server that wants so much of the large model's quality that it doubts what the small one says at random; half
    of the requests get there by exploration. It holds 6 tokens of a stream back.
    """
    settings = environment(judging_router, ROUTING_HOLD_TOKENS="6", ROUTING_MAX_REGRET="10") | {
        "POINTSMAN_ROUTING_QUALITY_TARGET": "0.8",
        "POINTSMAN_ROUTING_EXPLORATION": "0.5",
    }
    with run_server(checkpoints, tmp_path_factory.mktemp("doubting"), settings) as running:
        yield running


def until_explored(server: GatewayServer, **fields: Any) -> Any:
    """The first reply to an explored request; the chance that none of 40 is, is one in a million millions."""
    for i in range(40):
        reply = server.chat(model="auto", user=f"{fields.get('stream')}-{i}", **fields)
        assert reply.status == 200, reply.body
        router = chunks(reply)[-1]["router"] if fields.get("stream") else reply.json["router"]
        if router["explored"]:
            return reply
    raise AssertionError("nothing was explored")


def test_an_explored_request_keeps_its_action_and_its_second_chance(doubting: GatewayServer) -> None:
    before = escalations(doubting, "low_confidence")
    reply = until_explored(doubting, temperature=0, **WHOLE)
    assert said(reply) == said(doubting.chat(model="large", temperature=0, **WHOLE))
    assert reply.json["choices"][0]["logprobs"] is None, "they were read, and not asked for"
    router = reply.json["router"]
    assert (router["choice"], router["model"], router["propensity"]) == ("small", "large", 0.5)
    assert (router["escalated"], router["escalate_reason"]) == (True, "low_confidence")
    assert 0 < router["p_right"] < 1
    assert escalations(doubting, "low_confidence") == before + 1
    query = (
        "SELECT explored, action, model_served, propensity, escalate_reason, p_right, logprob_mean, logprob_min"
        " FROM decisions WHERE id = ?"
    )
    [row] = sqlite_rows(doubting, query, router["decision_id"].replace("-", ""))
    assert row[:5] == (1, "small", "large", 0.5, "low_confidence")
    assert row[5] == pytest.approx(router["p_right"])
    assert row[7] <= row[6] < 0
    doubting.until(lambda: is_idle(doubting))


def test_a_stream_is_judged_by_what_was_held_back(doubting: GatewayServer) -> None:
    fields = {"messages": ASKED, "max_tokens": 200, "ignore_eos": True, "temperature": 0}
    reply = until_explored(doubting, stream=True, stream_options={"include_usage": True}, **fields)
    large = doubting.chat(model="large", **fields)
    assert streamed(reply) == (large.json["choices"][0]["message"]["content"], "length", {large.json["model"]})
    assert reply.headers["x-router-escalated"] == "true"
    last = chunks(reply)[-1]
    assert last["router"]["escalate_reason"] == "low_confidence"
    discarded = last["usage"]["completion_tokens_details"]["discarded"]
    assert 6 <= discarded["completion_tokens"] < 200, "the small model was stopped"
    doubting.until(lambda: is_idle(doubting))


def test_validation_alone_judges_nothing(doubting: GatewayServer) -> None:
    reply = until_explored(doubting, router={"cascade": "validation"}, temperature=0, **WHOLE)
    assert said(reply) == said(doubting.chat(model="small", temperature=0, **WHOLE))
    router = reply.json["router"]
    assert (router["model"], router["escalated"], router["p_right"]) == ("small", False, None)


def test_an_answer_that_is_likely_enough_stays(checkpoints: Checkpoints, judging_router: Path, tmp_path: Path) -> None:
    with run_server(checkpoints, tmp_path, environment(judging_router)) as server:  # any quality will do
        reply = server.chat(model="auto", temperature=0, **WHOLE)
        assert said(reply) == said(server.chat(model="small", temperature=0, **WHOLE))
        router = reply.json["router"]
        assert (router["model"], router["escalated"], router["escalate_reason"]) == ("small", False, None)
        assert 0 < router["p_right"] < 1
        server.until(lambda: is_idle(server))


def test_a_promise_counts_the_second_chance_that_a_request_is_sure_to_have(
    doubting: GatewayServer, judging_router: Path
) -> None:
    policy = Policy(artefact=RouterArtefact.load(judging_router), prices=pair_prices(bundled_prices()))
    points = {cascade: policy.check(RouteOptions(quality=0.6, cascade=cascade)) for cascade in Cascade}
    assert points[Cascade.CONFIDENCE].threshold > points[Cascade.OFF].threshold

    def asked(router: dict[str, Any], **fields: Any) -> Cascade:
        """The cascade that the answer's threshold and promise count on."""
        found = doubting.decide(model="auto", messages=ASKED, router={"quality": 0.6, **router}, **fields).json
        promise, threshold = found["explain"]["promise"], found["threshold"]
        (cascade,) = (
            one
            for one in (Cascade.OFF, Cascade.CONFIDENCE)  # of its evidence no answer failed: validation is as off
            if threshold == pytest.approx(points[one].threshold)
        )
        assert promise["quality_at_least"] == pytest.approx(points[cascade].quality_lower)
        assert promise["cost_at_most"] == pytest.approx(points[cascade].cost_upper)
        assert promise["large_share"] == pytest.approx(points[cascade].share)
        return cascade

    assert asked({}) is Cascade.CONFIDENCE
    assert asked({"cascade": "off"}) is Cascade.OFF
    assert asked({"cascade": "validation"}) is Cascade.OFF
    assert asked({"max_cost_usd": 1.0}) is Cascade.OFF
    assert asked({}, n=2) is Cascade.OFF
    assert asked({}, stream=True) is Cascade.OFF
