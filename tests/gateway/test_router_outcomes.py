"""`POST /v1/router/outcomes` on a real server: what is taken, from whom, and where it ends up."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.database import Database
from gateway.storage.grades import Grades, load_grades
from gateway.storage.identifiers import new_id
from gateway.storage.models import DecisionRow, OutcomeRow
from tests.gateway.cuttable_proxy import proxied
from tests.gateway.rows import arrived, new_key, post, rows, sqlite_url
from tests.gateway.server import Checkpoints, GatewayServer, run_server

PATH = "/v1/router/outcomes"


@pytest.fixture(scope="module")
def open_server(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """One without keys, on SQLite."""
    with run_server(checkpoints, tmp_path_factory.mktemp("outcomes"), {}) as running:
        yield running


def decided(server: GatewayServer, **fields: Any) -> str:
    """The decision of a new answer."""
    reply = server.chat({"x-router-cascade": "off"}, **{"model": "auto", "max_tokens": 2, **fields})
    assert reply.status == 200
    decision: str = reply.json["router"]["decision_id"]
    assert decision == reply.headers["x-router-decision-id"]
    return decision


def grades(url: str) -> Grades:
    async def read() -> Grades:
        database = Database(url)
        try:
            return await load_grades(database)
        finally:
            await database.close()

    return asyncio.run(read())


def outcomes_of(server: GatewayServer, decision: str) -> list[dict[str, Any]]:
    return [row for row in rows(sqlite_url(server), OutcomeRow) if str(row["decision_id"]) == decision]


def test_an_outcome_can_be_told_as_soon_as_the_answer_is_there(open_server: GatewayServer) -> None:
    decision = decided(open_server)
    reply = post(open_server, PATH, {"decision_id": decision, "score": 0.75, "source": "judge", "weight": 0.5})
    assert reply.status == 200
    (said,) = reply.json["data"]
    assert (said["decision_id"], said["model"], reply.json["unchecked"]) == (decision, "large", 0)
    open_server.until(lambda: len(outcomes_of(open_server, decision)) == 1)
    (row,) = outcomes_of(open_server, decision)
    assert (row["score"], row["feedback"], row["source"], row["weight"]) == (0.75, None, "judge", 0.5)
    assert (row["model"], row["shadow"], row["key_id"], str(row["id"])) == ("large", False, None, said["id"])


def test_a_list_is_taken_together(open_server: GatewayServer) -> None:
    first, second = decided(open_server), decided(open_server, model="auto-cost")
    said = [{"decision_id": first, "correct": True}, {"decision_id": second, "feedback": -1, "correct": False}]
    reply = post(open_server, PATH, said)
    assert [one["model"] for one in reply.json["data"]] == ["large", "small"]
    open_server.until(lambda: outcomes_of(open_server, first) and outcomes_of(open_server, second))
    found = grades(sqlite_url(open_server))
    assert found[uuid.UUID(first)]["large"].score == 1.0
    assert (found[uuid.UUID(second)]["small"].score, found[uuid.UUID(second)]["small"].feedback) == (0.0, -1)


def test_what_is_sent_again_under_its_id_counts_once(open_server: GatewayServer) -> None:
    decision = decided(open_server)
    said = {"decision_id": decision, "score": 1.0, "id": "from the queue, 17"}
    ids = {post(open_server, PATH, said).json["data"][0]["id"] for _ in range(3)}
    assert len(ids) == 1
    # The same name for another decision, or of another source, is another statement.
    other = decided(open_server)
    post(open_server, PATH, [said | {"decision_id": other}, said | {"source": "judge"}])
    open_server.until(lambda: len(outcomes_of(open_server, other)) == 1)
    open_server.until(lambda: len(outcomes_of(open_server, decision)) == 2)
    assert {row["source"] for row in outcomes_of(open_server, decision)} == {"client", "judge"}


def test_a_later_word_of_the_same_source_replaces_the_one_before(open_server: GatewayServer) -> None:
    decision = decided(open_server)
    for feedback in (1, -1):
        assert post(open_server, PATH, {"decision_id": decision, "feedback": feedback}).status == 200
    open_server.until(lambda: len(outcomes_of(open_server, decision)) == 2)
    assert grades(sqlite_url(open_server))[uuid.UUID(decision)]["large"].score == 0.0


def test_the_other_model_can_be_judged_by_id_or_alias(open_server: GatewayServer) -> None:
    decision = decided(open_server)
    both = [{"decision_id": decision, "score": 0.0, "model": name} for name in ("tiny-small", "large")]
    assert [one["model"] for one in post(open_server, PATH, both).json["data"]] == ["small", "large"]


DECISION = str(uuid.UUID(int=7))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"score": 1}, 400, "decision_id"),
        ({"decision_id": "seven", "score": 1}, 400, "decision_id"),
        ({"decision_id": DECISION}, 400, "feedback"),
        ({"decision_id": DECISION, "score": 1.5}, 400, "score"),
        ({"decision_id": DECISION, "score": 1, "correct": True}, 400, "not both"),
        ({"decision_id": DECISION, "feedback": 2}, 400, "feedback"),
        ({"decision_id": DECISION, "score": 1, "weight": 0}, 400, "weight"),
        ({"decision_id": DECISION, "score": 1, "weight": 2}, 400, "weight"),
        ({"decision_id": DECISION, "score": 1, "source": "no spaces"}, 400, "source"),
        ({"decision_id": DECISION, "score": 1, "comment": "good"}, 400, "comment"),
        ({"decision_id": DECISION, "score": 1, "model": "huge"}, 400, "huge"),
        ([], 400, "1 to 256"),
        ([{"decision_id": DECISION, "score": 1}] * 257, 400, "1 to 256"),
        ({"decision_id": DECISION, "score": 1, "id": "x" * 129}, 400, "id"),
        ("good", 400, "Invalid request"),
        ({"decision_id": DECISION, "score": 1}, 404, DECISION),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_reason(
    open_server: GatewayServer, body: Any, status: int, words: str
) -> None:
    reply = post(open_server, PATH, body)
    assert reply.status == status
    assert words in reply.json["error"]["message"] or words == reply.json["error"]["param"]
    assert outcomes_of(open_server, DECISION) == []


def test_one_that_is_unknown_refuses_the_whole_list(open_server: GatewayServer) -> None:
    decision = decided(open_server)
    reply = post(open_server, PATH, [{"decision_id": one, "score": 1} for one in (decision, DECISION)])
    assert (reply.status, reply.json["error"]["code"]) == (404, "decision_not_found")
    assert outcomes_of(open_server, decision) == []


def test_a_body_that_a_browser_may_send_unasked_is_refused(open_server: GatewayServer) -> None:
    body = json.dumps({"decision_id": DECISION, "score": 1}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert open_server.fetch(PATH, body, {"content-type": kind}).status == 415


def test_of_a_request_that_was_refused_nothing_can_be_said(open_server: GatewayServer) -> None:
    reply = open_server.chat(model="auto", max_tokens=-1)
    assert reply.status == 400
    assert "x-router-decision-id" not in reply.headers


def test_another_keys_decision_does_not_exist(routed_server: GatewayServer, capsys: pytest.CaptureFixture[str]) -> None:
    decision = decided(routed_server)
    own, routed_server.key = routed_server.key, new_key(routed_server, ["somebody else"], capsys)
    try:
        reply = post(routed_server, PATH, {"decision_id": decision, "score": 1})
        assert (reply.status, reply.json["error"]["code"]) == (404, "decision_not_found")
    finally:
        routed_server.key = own
    assert post(routed_server, PATH, {"decision_id": decision, "score": 1}).status == 200


def test_without_a_key_nothing_is_taken_where_one_is_needed(routed_server: GatewayServer) -> None:
    reply = post(routed_server, PATH, {"decision_id": DECISION, "score": 1}, authorization="")
    assert reply.status == 401


def test_decisions_of_before_a_restart_can_be_spoken_of(checkpoints: Checkpoints, tmp_path: Path) -> None:
    with run_server(checkpoints, tmp_path, {}) as first:
        decision = decided(first)
        first.stop()
    with run_server(checkpoints, tmp_path, {}) as second:
        assert post(second, PATH, {"decision_id": decision, "score": 1}).json["data"][0]["model"] == "large"


async def test_outcomes_are_taken_while_the_database_is_away(
    checkpoints: Checkpoints, postgres_database_url: str, tmp_path: Path
) -> None:
    async with proxied(postgres_database_url) as (proxy, url):
        environment = {"POINTSMAN_DATABASE_URL": url, "POINTSMAN_STORAGE_TIMEOUT_S": "1"}
        serving = run_server(checkpoints, tmp_path, environment)
        running = await asyncio.to_thread(serving.__enter__)
        try:
            old = await asyncio.to_thread(decided, running)
            await asyncio.to_thread(arrived, running, postgres_database_url, DecisionRow, 1)
            await proxy.cut()
            new = await asyncio.to_thread(decided, running)
            elsewhere = str(new_id())  # another gateway's decision: nobody can be asked whether there is one
            said = [{"decision_id": one, "score": 0.5} for one in (old, new, elsewhere)]
            reply = await asyncio.to_thread(post, running, PATH, said)
            assert reply.status == 200
            assert [one["model"] for one in reply.json["data"]] == ["large", "large", None]
            assert reply.json["unchecked"] == 1
            assert await asyncio.to_thread(rows, postgres_database_url, OutcomeRow) == []
            await proxy.mend()
            await asyncio.to_thread(arrived, running, postgres_database_url, OutcomeRow, 3)
            await asyncio.to_thread(arrived, running, postgres_database_url, DecisionRow, 2)
            found = await asyncio.to_thread(grades, postgres_database_url)
            assert set(found) == {uuid.UUID(old), uuid.UUID(new)}
        finally:
            await asyncio.to_thread(serving.__exit__, None, None, None)


async def test_another_gateways_decision_is_waited_for(
    checkpoints: Checkpoints, postgres_database_url: str, tmp_path: Path
) -> None:
    environment = {"POINTSMAN_DATABASE_URL": postgres_database_url}
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    slow = environment | {"POINTSMAN_STORAGE_FLUSH_S": "0.8"}
    one, two = run_server(checkpoints, folders[0], slow), run_server(checkpoints, folders[1], environment)
    try:
        first, second = await asyncio.gather(asyncio.to_thread(one.__enter__), asyncio.to_thread(two.__enter__))
        decision = await asyncio.to_thread(decided, first)
        assert rows_now(await asyncio.to_thread(rows, postgres_database_url, DecisionRow), decision) == []
        reply = await asyncio.to_thread(post, second, PATH, {"decision_id": decision, "score": 1})
        assert (reply.status, reply.json["unchecked"]) == (200, 0)
    finally:
        for serving in (one, two):
            await asyncio.to_thread(serving.__exit__, None, None, None)


def rows_now(found: list[dict[str, Any]], decision: str) -> list[dict[str, Any]]:
    return [row for row in found if str(row["id"]) == decision]
