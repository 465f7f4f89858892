"""The registry of routers over HTTP and by the command: listed, promoted, refused, rolled back, recalibrated."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete

from gateway.cli import main
from gateway.storage.database import Database
from gateway.storage.models import DecisionRow, OutcomeRow
from gateway.storage.records import Record
from gateway.storage.sink import SqlRecordSink
from router_model.artefact import RouterArtefact
from router_model.registry import Registry
from tests.gateway.router_worlds import Routers, foreign_router, logged, train_routers, world
from tests.gateway.rows import new_key, post, rows, sqlite_url
from tests.gateway.server import Checkpoints, GatewayServer, Reply, run_server

PATH = "/v1/router/artefacts"
CALIBRATE = "/v1/router/calibrate"


@pytest.fixture(scope="module")
def routers(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Routers:
    return train_routers(tmp_path_factory.mktemp("routers"), checkpoints)


@pytest.fixture(autouse=True)
def served_pair(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' settings name the pair that the servers serve."""
    monkeypatch.setenv("POINTSMAN_SMALL", str(checkpoints.small))
    monkeypatch.setenv("POINTSMAN_LARGE", str(checkpoints.large))


@pytest.fixture(scope="module")
def running(
    checkpoints: Checkpoints, routers: Routers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """A server whose settings name the blind router."""
    with run_server(checkpoints, tmp_path_factory.mktemp("artefacts"), {"POINTSMAN_ROUTER": str(routers.blind)}) as one:
        yield one


@pytest.fixture
def routed(running: GatewayServer, routers: Routers) -> GatewayServer:
    """The same with nothing in its registry, nor in its log."""
    shutil.rmtree(running.log.parent / "routers", ignore_errors=True)
    running.until(lambda: listed(running)["in_force"] == routers.hash("blind"))
    forget(running)
    return running


def listed(server: GatewayServer) -> Any:
    reply = server.fetch(PATH)
    assert reply.status == 200
    return reply.json


def command(server: GatewayServer, *arguments: str) -> int:
    return main(["router", *arguments, "--data-dir", str(server.log.parent)])


def decided_by(server: GatewayServer) -> str | None:
    """Hash of the router in the row of a new decision."""
    decision = server.chat(model="auto", max_tokens=2).json["router"]["decision_id"]

    def found() -> list[dict[str, Any]]:
        return [row for row in rows(sqlite_url(server), DecisionRow) if str(row["id"]) == decision]

    server.until(found)
    (row,) = found()
    artefact: str | None = row["artefact_hash"]
    return artefact


def record(server: GatewayServer, records: list[Record]) -> None:
    """Put rows into the server's database."""

    async def insert() -> None:
        database = Database(sqlite_url(server))
        await SqlRecordSink(database).insert(records)
        await database.close()

    asyncio.run(insert())


def copied(folder: Path, to: Path) -> Path:
    """A copy that is new, by its time of change, too."""
    shutil.copytree(folder, to, copy_function=shutil.copy)
    return to


def forget(server: GatewayServer) -> None:
    """Empty the server's log."""

    async def empty() -> None:
        database = Database(sqlite_url(server))
        async with database.write() as connection:
            for table in (DecisionRow, OutcomeRow):
                await connection.execute(delete(table))
        await database.close()

    asyncio.run(empty())


def error(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["error"]["code"]


def test_a_promotion_by_the_command_reaches_a_running_server_and_can_be_taken_back(
    routed: GatewayServer, routers: Routers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POINTSMAN_ROUTER", str(routers.blind))
    blind, seeing = routers.hash("blind"), routers.hash("seeing")
    assert listed(routed) == {"object": "list", "data": [], "in_force": blind, "history": []}
    assert decided_by(routed) == blind
    assert command(routed, "promote", str(routers.seeing), "--force") == 0
    assert seeing[:12] in capsys.readouterr().out
    routed.until(lambda: listed(routed)["in_force"] == seeing)
    assert decided_by(routed) == seeing
    (only,) = listed(routed)["data"]
    assert (only["hash"], only["is_current"], only["fits"], only["n_rows"]) == (seeing, True, True, 400)
    # Back, through the server itself: at once.
    reply = post(routed, PATH, {"rollback": True})
    assert (reply.json["hash"], reply.json["in_force"]) == (None, blind)
    assert decided_by(routed) == blind
    assert [one["hash"] for one in listed(routed)["history"]] == [seeing, None]
    assert command(routed, "artefacts") == 0
    said = capsys.readouterr().out
    assert f"* {blind[:12]}" in said
    assert f"  {seeing[:12]}" in said


def test_a_promotion_must_be_shown_to_be_better(
    routed: GatewayServer, routers: Routers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTSMAN_ROUTER", str(routers.blind))
    blind, seeing = routers.hash("blind"), routers.hash("seeing")
    before = world(150, 5)
    record(routed, logged(before))  # decided before the candidates came: they may have been trained on it
    for name, folder in (("seeing", routers.seeing), ("blind", routers.blind)):
        # Without a comparison there is nothing to go by, so neither is put in force; both are in the registry then.
        command(routed, "promote", str(copied(folder, tmp_path / name)))
    assert {one["hash"] for one in listed(routed)["data"]} == {blind, seeing}
    assert listed(routed)["in_force"] == blind
    assert error(post(routed, PATH, {"promote": seeing})) == (422, "cannot_compare")

    record(routed, logged(world(150, 6)))
    reply = post(routed, PATH, {"promote": seeing[:10]})
    assert reply.status == 200, reply.body
    assert (reply.json["hash"], reply.json["in_force"]) == (seeing, seeing)
    assert reply.json["comparison"]["apgr"]["lower"] > 0
    assert decided_by(routed) == seeing

    reply = post(routed, PATH, {"promote": blind})
    assert error(reply) == (409, "promotion_refused")
    assert "APGR" in reply.json["error"]["message"]
    assert listed(routed)["in_force"] == seeing
    assert post(routed, PATH, {"promote": blind, "force": True}).json["in_force"] == blind


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"promote": "ab", "rollback": True}, 400),
        ({"promote": "0123456789ab"}, 404),
        ({"rollback": True}, 409),
        ({"promote": 7}, 400),
        ({"demote": "ab"}, 400),
    ],
)
def test_what_cannot_be_done_changes_nothing(server: GatewayServer, body: Any, status: int) -> None:
    assert post(server, PATH, body).status == status
    assert listed(server)["history"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("POST", PATH), ("POST", CALIBRATE), ("GET", "/v1/router/shadow"), ("POST", "/v1/router/shadow")],
)
def test_only_a_key_that_may_operates_the_router(
    routed_server: GatewayServer, method: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = None if method == "GET" else b"{}"
    reply = routed_server.fetch(path, body, method=method)
    assert error(reply) == (403, "permission_denied")
    assert "--router-admin" in reply.json["error"]["message"]
    own, routed_server.key = routed_server.key, new_key(routed_server, ["operator", "--router-admin"], capsys)
    try:
        assert routed_server.fetch(path, body, method=method).status not in (401, 403)
    finally:
        routed_server.key = own


def test_a_page_in_a_browser_cannot_change_routing(server: GatewayServer) -> None:
    for path in (PATH, CALIBRATE, "/v1/router/shadow"):
        assert server.fetch(path, b'{"share": 1}', {"content-type": "text/plain"}).status == 415


def test_a_router_of_another_pair_is_not_taken(
    routed: GatewayServer, routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign_router(routers).save(tmp_path / "foreign")
    assert command(routed, "promote", str(tmp_path / "foreign"), "--force") == 2
    refused = capsys.readouterr().err
    registry = Registry(routed.log.parent / "routers")
    assert registry.history == ()
    name = registry.add(RouterArtefact.load(tmp_path / "foreign"))
    assert command(routed, "promote", name, "--force") == 2
    reply = post(routed, PATH, {"promote": name, "force": True})
    assert error(reply) == (422, "cannot_compare")
    # The same check in the same words, but for where the router lies.
    for said in (refused, capsys.readouterr().err, reply.json["error"]["message"]):
        assert f"was trained for the small model {'0' * 64}, but" in said
        assert "train a router on this pair's outcomes, or serve the pair it was trained for" in said
    registry.promote(name)  # as a pair that was changed later would leave it
    routed.until(lambda: [one["hash"] for one in listed(routed)["data"] if one["is_current"]] == [name])
    assert not listed(routed)["data"][0]["fits"]
    assert decided_by(routed) == routers.hash("blind")
    assert error(post(routed, PATH, {"promote": name})) == (422, "cannot_compare")


def test_what_lies_broken_in_the_registry_does_not_stop_the_server(
    checkpoints: Checkpoints, routers: Routers, tmp_path: Path
) -> None:
    with run_server(checkpoints, tmp_path, {"POINTSMAN_ROUTER": str(routers.blind)}) as running:
        assert command(running, "promote", str(routers.seeing), "--force") == 0
        running.until(lambda: listed(running)["in_force"] == routers.hash("seeing"))
        (tmp_path / "routers" / routers.hash("seeing") / "router.safetensors").write_bytes(b"")
        running.stop()
    with run_server(checkpoints, tmp_path, {"POINTSMAN_ROUTER": str(routers.blind)}) as running:
        assert listed(running)["in_force"] == routers.hash("blind")
        assert decided_by(running) == routers.hash("blind")


def test_a_router_is_fitted_to_newer_outcomes(routed: GatewayServer, routers: Routers) -> None:
    blind = routers.hash("blind")
    assert error(post(routed, CALIBRATE, {})) == (422, "cannot_calibrate")
    record(routed, logged(world(180, 7)))
    reply = post(routed, CALIBRATE, {})
    assert reply.status == 200, reply.body
    assert (reply.json["parent"], reply.json["rows"], reply.json["in_force"]) == (blind, 180, blind)
    (only,) = listed(routed)["data"]
    assert (only["hash"], only["parent"], only["is_current"]) == (reply.json["hash"], blind, False)
    assert decided_by(routed) == blind
    # It ranks as the one before did, so it cannot be shown to be better.
    record(routed, logged(world(180, 8)))
    assert error(post(routed, CALIBRATE, {"promote": True})) == (409, "promotion_refused")
    assert listed(routed)["in_force"] == blind


def test_what_either_router_may_have_learned_from_does_not_compare_them(
    routed: GatewayServer, routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTSMAN_ROUTER", str(routers.blind))
    command(routed, "promote", str(routers.seeing))  # into the registry only: there is nothing to compare on
    record(routed, logged(world(150, 9)))
    assert command(routed, "promote", str(routers.blind), "--force") == 0  # came after all that was graded
    routed.until(
        lambda: [one["hash"] for one in listed(routed)["data"] if one["is_current"]] == [routers.hash("blind")]
    )
    assert error(post(routed, PATH, {"promote": routers.hash("seeing")})) == (422, "cannot_compare")


def test_another_router_is_valued_by_its_hash_whether_it_is_in_force_or_only_there(
    routed: GatewayServer, routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTSMAN_ROUTER", str(routers.blind))
    command(routed, "promote", str(routers.seeing))
    record(routed, logged(world(60, 10)))
    for name in ("blind", "seeing"):
        for asked in (routers.hash(name), routers.hash(name)[:9]):
            reply = post(routed, "/v1/router/evaluate", {"policy": {"quality": 0.9, "artefact": asked}})
            # The log has no exploration, which is a word on the log: the router was found, and decided.
            assert error(reply) == (422, "unidentifiable"), reply.body
    missing = post(routed, "/v1/router/evaluate", {"policy": {"quality": 0.9, "artefact": "0123"}})
    assert error(missing) == (404, "artefact_not_found")
    assert routers.hash("seeing")[:12] not in missing.body.decode(), "what is there is the operator's to know"


def test_a_damaged_registry_is_said_to_be_one(routed: GatewayServer) -> None:
    folder = routed.log.parent / "routers"
    folder.mkdir(exist_ok=True)
    (folder / "current.json").write_text("{")
    try:
        assert error(routed.fetch(PATH)) == (500, "registry_damaged")
        assert error(post(routed, PATH, {"rollback": True})) == (500, "registry_damaged")
    finally:
        (folder / "current.json").unlink()


def test_without_a_router_there_is_none_to_calibrate(server: GatewayServer) -> None:
    assert error(post(server, CALIBRATE, {})) == (409, "no_router")


def test_an_evaluation_calls_the_log_the_log(
    routed: GatewayServer, routers: Routers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(routed, logged(world(60, 15)))
    out = tmp_path / "report.json"
    sources = ["--artefact", str(routers.seeing), "--data", "log:", sqlite_url(routed)]
    assert command(routed, "evaluate", *sources, "--json", str(out)) == 0
    assert msgspec.json.decode(out.read_bytes())["data_files"] == ["log:", "log:"]
    said = capsys.readouterr().out
    assert said.startswith("log:, log:: 120 outcomes")
    assert "pointsman-log-" not in said
