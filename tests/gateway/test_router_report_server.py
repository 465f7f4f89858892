"""`GET /v1/router/report` and `POST /v1/router/evaluate` on a real server: who sees what, and what is refused."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.storage.models import OutcomeRow
from tests.gateway.rows import new_key, post, rows, sqlite_url
from tests.gateway.server import Checkpoints, GatewayServer, Reply, run_server

REPORT, EVALUATE = "/v1/router/report", "/v1/router/evaluate"
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def open_server(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """One without keys, on SQLite, with some graded requests."""
    with run_server(checkpoints, tmp_path_factory.mktemp("report"), {}) as running:
        for i in range(3):
            reply = running.chat(
                {"x-router-cascade": "off", "x-router-route": "some/route"}, model="auto", max_tokens=2
            )
            assert reply.status == 200
            said = {"decision_id": reply.json["router"]["decision_id"], "score": i / 2}
            assert post(running, "/v1/router/outcomes", said).status == 200
        running.until(lambda: len(rows(sqlite_url(running), OutcomeRow)) == 3)
        running.until(lambda: running.fetch(REPORT).json["graded"] == 3)
        yield running


def asked(server: GatewayServer, **fields: Any) -> Reply:
    return post(server, EVALUATE, fields)


class Counter(HTMLParser):
    """Counts tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.append(tag)


def test_the_report_counts_what_was_served_and_graded(open_server: GatewayServer) -> None:
    report = open_server.fetch(f"{REPORT}?since=1h").json
    assert (report["requests"], report["routed"], report["graded"], report["scope"]) == (3, 3, 3, "all keys")
    assert report["state"]["artefact_hash"] is None, "the tiny pair has no trained router"
    assert report["curve"]["source"] is None
    assert report["curve"]["note"]
    assert [one["against"] for one in report["comparisons"]] == ["all_large", "matched_random"]
    assert sum(part["requests"] for part in report["mix"]["by_reason"]) == 3
    assert report["overhead"]["n"] == 3
    assert open_server.fetch(REPORT).json["requests"] == 3


def test_the_page_is_html_without_anything_that_runs(open_server: GatewayServer) -> None:
    page = open_server.fetch(f"{REPORT}?format=html")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    counter = Counter()
    counter.feed(page.body.decode())
    assert {"html", "table", "h1"} <= set(counter.tags)
    assert "script" not in counter.tags
    assert "some/route" in page.body.decode()


@pytest.mark.parametrize("query", ["since=soon", "since=0h", "format=pdf", "until=now"])
def test_a_query_that_means_nothing_is_refused(open_server: GatewayServer, query: str) -> None:
    reply = open_server.fetch(f"{REPORT}?{query}")
    assert reply.status == 400
    assert reply.json["error"]["param"] == query.split("=", maxsplit=1)[0]


def test_a_log_that_cannot_answer_is_a_422_that_says_why(open_server: GatewayServer) -> None:
    for policy in ({"model": "small"}, {"share": 0.5}, {"shift": 0.1}):
        reply = asked(open_server, policy=policy)
        assert reply.status == 422
        assert reply.json["error"]["code"] == "unidentifiable"
        assert any(word in reply.json["error"]["message"] for word in ("no alternative", "no score and threshold"))
    assert (
        "no such decision" in asked(open_server, policy={"model": "small"}, scope="explorable").json["error"]["message"]
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"policy": {}}, 400),
        ({"policy": {"model": "small", "share": 0.5}}, 400),
        ({"policy": {"share": 2}}, 400),
        ({"policy": {"model": "medium"}}, 400),
        ({"policy": {"quality": 0.9}}, 400),
        ({"policy": {"quality": 0.9, "artefact": "ab" * 32}}, 404),
        ({"policy": {"model": "small"}, "reward": {"kind": "score", "cost_weight": -1}}, 400),
        ({"policy": {"model": "small"}, "since": "yesterday"}, 400),
        ({"policy": {"model": "small"}, "more": 1}, 400),
    ],
    ids=str,
)
def test_a_question_that_means_nothing_is_refused(open_server: GatewayServer, body: Any, status: int) -> None:
    reply = post(open_server, EVALUATE, body)
    assert reply.status == status
    assert reply.json["error"]["message"]


def test_a_key_sees_its_own_requests_only(routed_server: GatewayServer) -> None:
    before = routed_server.fetch(REPORT).json
    assert before["scope"] == "key tests"
    routed_server.chat(model="auto", max_tokens=2)
    routed_server.until(lambda: routed_server.fetch(REPORT).json["requests"] == before["requests"] + 1)
    report = routed_server.fetch(REPORT).json
    assert {part["name"] for part in report["mix"]["by_key"]} == {"tests"}
    assert report["state"]["artefact_hash"]
    assert routed_server.fetch(REPORT, headers={"authorization": "Bearer nonsense"}).status == 401
    body = json.dumps({"policy": {"model": "small"}}).encode()
    assert routed_server.fetch(EVALUATE, body, {"authorization": "Bearer nonsense"}).status == 401


def test_a_keys_name_is_shown_as_text_and_an_operator_sees_all(routed_server: GatewayServer, capsys: Any) -> None:
    others = routed_server.fetch(REPORT).json["requests"]
    own, operator = (new_key(routed_server, arguments, capsys) for arguments in ([EVIL], ["ops", "--router-admin"]))
    as_own = {"authorization": f"Bearer {own}"}
    assert routed_server.chat(as_own, model="auto", max_tokens=2).status == 200
    routed_server.until(lambda: routed_server.fetch(REPORT, headers=as_own).json["requests"] == 1)
    page = routed_server.fetch(f"{REPORT}?format=html", headers=as_own).body.decode()
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    everything = routed_server.fetch(REPORT, headers={"authorization": f"Bearer {operator}"}).json
    assert everything["scope"] == "all keys"
    assert everything["requests"] > others
    assert {EVIL, "tests"} <= {part["name"] for part in everything["mix"]["by_key"]}
