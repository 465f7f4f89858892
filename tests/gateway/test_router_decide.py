"""`POST /v1/router/decide` and `router.explain`: the evidence of a decision, without an answer or beside one."""

import contextlib
import sqlite3
from typing import Any

import pytest

from router_model.cheap import NAMES
from tests.gateway.server import GatewayServer, Reply
from tests.gateway.test_routing_server import is_idle

PROMPT: list[Any] = [{"role": "user", "content": "Which of these words is the longest one of all? " * 6}]


def recorded(server: GatewayServer) -> set[str]:
    """Ids of the decisions in the database, without dashes."""
    with contextlib.closing(sqlite3.connect(server.log.parent / "pointsman.sqlite3")) as database:
        return {str(row[0]).replace("-", "") for row in database.execute("SELECT id FROM decisions")}


def id_of(reply: Reply) -> str:
    return reply.headers["x-router-decision-id"].replace("-", "")


def test_a_dry_run_decides_as_the_request_would_be(routed_server: GatewayServer) -> None:
    for model in ("auto", "auto-quality", "auto-cost", "small", "large"):
        asked: Any = {"model": model, "messages": PROMPT}
        dry = routed_server.decide(**asked).json
        real = routed_server.chat(**asked).json["router"]
        for name in ("choice", "reason", "target", "policy", "score", "rank", "threshold", "p_small", "p_large"):
            assert dry[name] == pytest.approx(real[name], abs=1e-3) if dry[name] else not real[name], name


def test_a_dry_run_generates_nothing_holds_nothing_and_records_nothing(routed_server: GatewayServer) -> None:
    routed_server.until(lambda: is_idle(routed_server))
    before = [routed_server.engine(model) for model in ("small", "large")]
    dry = [
        routed_server.decide(model=model, messages=PROMPT, stream=True, n=3)
        for model in ("auto", "auto-quality", "large")
    ]
    assert [reply.status for reply in dry] == [200] * 3
    assert is_idle(routed_server)
    after = [routed_server.engine(model) for model in ("small", "large")]
    assert [one["tokens_generated"] for one in after] == [one["tokens_generated"] for one in before]
    assert after[0]["prepared"] == before[0]["prepared"] + 2
    later = id_of(routed_server.chat(model="small"))
    routed_server.until(lambda: later in recorded(routed_server))  # rows are written in the order of their requests
    assert not recorded(routed_server) & {id_of(reply) for reply in dry}


def test_a_dry_run_explains_itself(routed_server: GatewayServer) -> None:
    reply = routed_server.decide(model="auto", messages=PROMPT, max_tokens=7, router={"route": "docs"})
    router = reply.json
    explain = router["explain"]
    assert list(explain["features"]) == list(NAMES)
    assert explain["features"]["question_marks"] > 0
    assert set(explain["first_token"]) == {"entropy", "margin"}
    assert explain["gain"] == router["score"]
    assert router["route"] == "docs"
    assert explain["eligible"] == ["small", "large"]
    assert explain["ineligible"] == {}
    assert 0 <= explain["promise"]["quality_at_least"] <= 1
    assert 0 <= explain["promise"]["large_share"] <= 1
    assert explain["session"]["last_model"] is None
    assert explain["artefact"]
    assert router["cost_usd"] is None
    assert reply.headers["x-router-reason"] == router["reason"]
    assert reply.headers["x-router-calibrated"] == str(router["calibrated"]).lower()


def test_explanations_come_with_answers_whole_and_streamed_where_asked_for(routed_server: GatewayServer) -> None:
    whole = routed_server.chat(model="auto", messages=PROMPT, max_tokens=3, router={"explain": True}).json["router"]
    assert whole["explain"]["features"]
    assert "explain" not in routed_server.chat(model="auto", messages=PROMPT).json["router"]
    with routed_server.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="auto",
                messages=PROMPT,
                max_tokens=3,
                stream=True,
                extra_headers={"x-router-explain": "on"},
            )
        )
    last: Any = chunks[-1]
    assert last.router["explain"]["features"] == whole["explain"]["features"]


@pytest.mark.parametrize(
    "wrong", [{"messages": []}, {"model": "gpt-4"}, {"router": {"quality": 3}}, {"temperature": 9}], ids=str
)
def test_a_dry_run_is_refused_as_the_request_would_be(routed_server: GatewayServer, wrong: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "auto", **wrong}
    dry, real = routed_server.decide(**asked), routed_server.chat(**asked)
    assert dry.status == real.status != 200
    assert dry.json["error"] == real.json["error"]


def test_without_a_router_the_rule_is_explained(server: GatewayServer) -> None:
    router = server.decide(model="auto", messages=PROMPT).json
    assert (router["choice"], router["reason"], router["explain"]["features"]) == ("large", "no_router", {})
    assert router["explain"]["promise"] is None
    reply = server.decide(model="auto", messages=PROMPT, router={"quality": 0.5, "cost": 0.5})
    assert (reply.status, reply.json["error"]["code"]) == (400, "router_conflict")
