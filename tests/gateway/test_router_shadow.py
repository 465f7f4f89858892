"""Shadow pairs on a real server, and the whole circle: served, graded, exported, trained, promoted, decided by."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.storage.models import DecisionRow, OutcomeRow, RequestRow
from router_model.artefact import RouterArtefact
from router_model.outcomes import read_outcomes
from tests.gateway.rows import arrived, post, rows, sqlite_url
from tests.gateway.server import Checkpoints, GatewayServer, run_server

PATH = "/v1/router/shadow"
N_SERVED = 130

GRADER = """
import json, sys
said = json.load(sys.stdin)
is_hard = "hard" in said["request"]["messages"][-1]["content"]
print(0.0 if is_hard and said["model"] == "small" else 1.0)
"""


def state(server: GatewayServer) -> Any:
    reply = server.fetch(PATH)
    assert reply.status == 200
    return reply.json


def ask(server: GatewayServer, content: str, **fields: Any) -> Any:
    reply = server.chat(
        {"x-router-cascade": "off"},
        **{"model": "auto", "messages": [{"role": "user", "content": content}], "max_tokens": 2, **fields},
    )
    assert reply.status == 200
    return reply.json


@pytest.fixture
def graded(checkpoints: Checkpoints, router_folder: Path, tmp_path: Path) -> Iterator[GatewayServer]:
    """A server with a router and a grader of its own, which explores a lot."""
    grader = tmp_path / "grader.py"
    grader.write_text(GRADER)
    environment = {
        "POINTSMAN_ROUTER": str(router_folder),
        "POINTSMAN_ROUTING_EXPLORATION": "0.5",
        "POINTSMAN_ROUTING_EARLY": "false",
        "POINTSMAN_ROUTING_SHADOW_AT_ONCE": "4",
        "POINTSMAN_ROUTING_GRADER_COMMAND": f"{shlex.quote(sys.executable)} -S {shlex.quote(str(grader))}",
        "POINTSMAN_ROUTING_GRADER_TIMEOUT_S": "60",
    }
    with run_server(checkpoints, tmp_path, environment) as running:
        yield running


def test_it_is_off_until_it_is_asked_for(server: GatewayServer) -> None:
    assert (state(server)["share"], state(server)["source"]) == (0.0, "schema_valid")
    ask(server, "hi")
    assert state(server)["counts"]["drawn"] == 0


@pytest.mark.parametrize("body", [{}, {"share": 1.5}, {"share": -0.1}, {"at_once": 0}, {"at_once": 65}, {"speed": 1}])
def test_what_makes_no_sense_is_refused(server: GatewayServer, body: Any) -> None:
    before = state(server)
    assert post(server, PATH, body).status == 400
    assert state(server) == before


def test_the_client_pays_for_its_own_answer_only(graded: GatewayServer) -> None:
    assert post(graded, PATH, {"share": 1.0}).json["share"] == 1.0
    said = ask(graded, "an easy one")
    graded.until(lambda: state(graded)["counts"]["answered"] == 1, timeout_s=60)
    counts = state(graded)["counts"]
    assert counts["cost_usd"] > 0
    served, other = sorted(
        arrived(graded, sqlite_url(graded), OutcomeRow, 2), key=lambda row: row["model"] != said["router"]["model"]
    )
    assert (served["cost_usd"], other["cost_usd"]) == (0, pytest.approx(counts["cost_usd"]))
    (decision,) = arrived(graded, sqlite_url(graded), DecisionRow, 1)
    (request,) = arrived(graded, sqlite_url(graded), RequestRow, 1)
    assert decision["cost_usd"] == request["cost_usd"] == pytest.approx(said["router"]["cost_usd"])
    assert {str(served["decision_id"]), str(other["decision_id"])} == {said["router"]["decision_id"]}


def test_who_opted_out_or_named_a_model_is_not_compared(graded: GatewayServer) -> None:
    post(graded, PATH, {"share": 1.0})
    ask(graded, "hi", router={"explore": False})
    ask(graded, "hi", model="small", router=None)
    assert state(graded)["counts"]["drawn"] == 0
    ask(graded, "hi")
    assert state(graded)["counts"]["drawn"] == 1


def test_the_circle(
    graded: GatewayServer,
    checkpoints: Checkpoints,
    router_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("POINTSMAN_ROUTER", str(router_folder))
    post(graded, PATH, {"share": 1.0})
    for i in range(N_SERVED):
        ask(graded, f"{'a hard' if i % 3 else 'an easy'} question of number {i}")
        graded.until(lambda: state(graded)["waiting"] < 30, timeout_s=120)
    graded.until(lambda: state(graded)["counts"]["answered"] == N_SERVED, timeout_s=300)
    assert state(graded)["counts"]["ungraded"] == 0
    arrived(graded, sqlite_url(graded), OutcomeRow, 2 * N_SERVED)

    log, new = tmp_path / "log.jsonl.gz", tmp_path / "new"
    folder = ["--data-dir", str(tmp_path)]
    assert main(["router", "export-log", "--out", str(log), *folder]) == 0
    assert f"{N_SERVED} outcomes" in capsys.readouterr().out
    found = read_outcomes([log])
    assert all(one.has_both for one in found)
    assert {(one.weak_score, one.strong_score) for one in found} == {(0.0, 1.0), (1.0, 1.0)}
    decided = {str(row["id"]): row["propensity"] for row in rows(sqlite_url(graded), DecisionRow)}
    assert {one.id: one.propensity for one in found} == {one.id: decided[one.id] for one in found}
    assert 0.5 in decided.values()  # until a drift is noticed, when nothing is explored
    assert {one.source for one in found} == {"command"}

    pair = [f"--{name}={path}" for name, path in (("small", checkpoints.small), ("large", checkpoints.large))]
    assert main(["router", "train", "--data", str(log), "--out", str(new), *pair]) == 0
    assert main(["router", "train", "--data", "log:", "--out", str(tmp_path / "same"), *pair, *folder]) == 0
    trained = RouterArtefact.load(new)
    assert trained.hash == RouterArtefact.load(tmp_path / "same").hash
    assert trained.manifest.n_both == N_SERVED

    assert main(["router", "promote", str(new), "--force", *pair, *folder]) == 0
    graded.until(lambda: graded.fetch("/v1/router/artefacts").json["in_force"] == trained.hash)
    decision = ask(graded, "a hard question")["router"]["decision_id"]
    graded.until(lambda: decision in {str(row["id"]) for row in rows(sqlite_url(graded), DecisionRow)})
    (row,) = (row for row in rows(sqlite_url(graded), DecisionRow) if str(row["id"]) == decision)
    assert row["artefact_hash"] == trained.hash
    assert row["propensity"] in (0.5, 1.0)


def test_generated_outcomes_hold_the_small_models_answer(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POINTSMAN_ENGINE_MODE", "thread")
    grader = tmp_path / "grader.py"
    grader.write_text("import json, sys; said = json.load(sys.stdin); print(0.25 if said['expected'] == 'a' else 'no')")
    monkeypatch.setenv("POINTSMAN_ROUTING_GRADER_COMMAND", f"{shlex.quote(sys.executable)} {shlex.quote(str(grader))}")
    request = {"messages": [{"role": "user", "content": "Which way?"}], "max_tokens": 4}
    lines = [{"id": name, "request": request, "expected": name, "route": "roads"} for name in ("a", "b")]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ["--data", str(tmp_path / "requests.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    pair = ["--small", str(checkpoints.small), "--large", str(checkpoints.large), "--data-dir", str(tmp_path)]
    assert main(["router", "generate-outcomes", *arguments, *pair, "--grader", "command"]) == 0
    assert "1 requests stayed ungraded" in capsys.readouterr().out
    (row,) = read_outcomes([tmp_path / "out.jsonl"])
    assert (row.id, row.weak_score, row.strong_score) == ("a", 0.25, 0.25)
    assert (row.source, row.route) == ("command", "roads")
    assert row.weak_response is not None
    assert row.small_valid is False  # it was cut off
    assert row.small_logprob_mean is not None
    assert row.small_logprob_min is not None
    assert row.small_logprob_min <= row.small_logprob_mean <= 0
