"""Grading of ordinary answers on a real server, with a grader that is a real process, up to what is learned from it."""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.cli import main
from gateway.routing.live_grading import MAX_WAITING
from gateway.storage.models import DecisionRow, OutcomeRow
from router_model.artefact import RouterArtefact
from router_model.options import Action
from router_model.outcomes import read_outcomes
from tests.gateway.rows import arrived, rows, sqlite_url
from tests.gateway.server import Checkpoints, GatewayServer, run_server

ALWAYS_WRONG = "import sys; sys.stdin.read(); print(0.0)"
FAILS = "raise SystemExit(3)"
HARD_OR_EASY = """
import json, sys
said = json.load(sys.stdin)
is_hard = "hard" in said["request"]["messages"][-1]["content"]
print(0.0 if is_hard and said["model"] == "small" else 1.0)
"""


def state_of_grades(server: GatewayServer) -> dict[str, float]:
    """How many answers are in which state, by /metrics."""
    return {labels["state"]: value for labels, value in metric(server, "pointsman_live_grades_total")}


def metric(server: GatewayServer, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(server.fetch("/metrics").body.decode())
    return [(one.labels, one.value) for family in families for one in family.samples if one.name == name]


def ask(server: GatewayServer, content: str = "hi", **fields: Any) -> Any:
    reply = server.chat(
        **{"model": "auto", "messages": [{"role": "user", "content": content}], "max_tokens": 2, **fields},
    )
    assert reply.status == 200
    return reply.json["router"]


@contextlib.contextmanager
def graded(
    checkpoints: Checkpoints, router: Path, folder: Path, program: str | None, **routing: str
) -> Iterator[GatewayServer]:
    """A server that has answers graded by that Python program."""
    environment = {
        "POINTSMAN_ROUTER": str(router),
        "POINTSMAN_ROUTING_EARLY": "false",
        "POINTSMAN_ROUTING_CASCADE": "off",
        "POINTSMAN_ROUTING_GRADER_TIMEOUT_S": "60",
        **{f"POINTSMAN_ROUTING_{name.upper()}": value for name, value in routing.items()},
    }
    if program is not None:
        (folder / "grader.py").write_text(program)
        command = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(folder / 'grader.py'))}"
        environment["POINTSMAN_ROUTING_GRADER_COMMAND"] = command
    with run_server(checkpoints, folder, environment) as running:
        yield running


def test_every_routed_answer_is_graded_where_that_is_asked(
    checkpoints: Checkpoints, router_folder: Path, tmp_path: Path
) -> None:
    with graded(checkpoints, router_folder, tmp_path, ALWAYS_WRONG, graded_share="1", exploration="0") as server:
        assert {labels["reason"]: value for labels, value in metric(server, "pointsman_router_drift")} == {
            "calibration_small": 0,
            "calibration_large": 0,
            "out_of_domain": 0,
        }
        ask(server, router={"explore": False})
        ask(server, model="large")
        answered = [ask(server, f"Question {number}?", model="auto-quality") for number in range(60)]
        server.until(lambda: state_of_grades(server)["done"] == 60, timeout_s=120)
        found = arrived(server, sqlite_url(server), OutcomeRow, 60)
        assert {str(row["decision_id"]) for row in found} == {one["decision_id"] for one in answered}
        assert len(found) == 60
        for row in found:
            assert (row["score"], row["source"], row["weight"], row["keep_prob"]) == (0.0, "command", 1.0, 1.0)
            assert (row["model"], row["shadow"]) == ("large", False)
        assert metric(server, "pointsman_outcomes_total") == [({"origin": "live", "source": "command"}, 60.0)]
        # The router had expected right answers of the large model, and is told otherwise.
        assert ({"reason": "calibration_large"}, 1.0) in metric(server, "pointsman_router_drift")
        ((labels, error),) = metric(server, "pointsman_router_calibration_error")
        assert labels == {"model": "large"}
        assert error > 0.9


def test_half_of_the_answers_are_graded_where_that_is_asked_and_count_twice(
    checkpoints: Checkpoints, router_folder: Path, tmp_path: Path
) -> None:
    with graded(checkpoints, router_folder, tmp_path, None, graded_share="0.5") as server:
        for number in range(100):
            ask(server, f"Question {number}?")
        state = state_of_grades(server)
        assert 25 <= state["drawn"] <= 75
        found = arrived(server, sqlite_url(server), OutcomeRow, int(state["drawn"]))
        assert len(found) == state["drawn"]
        assert {(row["keep_prob"], row["source"]) for row in found} == {(0.5, "schema_valid")}


def test_a_slow_grader_keeps_nobody_waiting_and_what_is_too_much_is_dropped(
    checkpoints: Checkpoints, router_folder: Path, tmp_path: Path
) -> None:
    may = tmp_path / "may"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(may)!r}).exists(): time.sleep(0.02)\nprint(1)"
    with graded(checkpoints, router_folder, tmp_path, waits, graded_share="1", grade_at_once="1") as server:
        n = MAX_WAITING + 1 + 5
        for number in range(n):
            ask(server, f"Question {number}?")
        assert state_of_grades(server) == {"drawn": n, "done": 0, "failed": 0, "dropped": 5}
        may.touch()
        server.until(lambda: state_of_grades(server)["done"] == MAX_WAITING + 1, timeout_s=120)
        arrived(server, sqlite_url(server), OutcomeRow, MAX_WAITING + 1)


def test_answers_that_the_grader_fails_on_are_counted_and_stay_ungraded(
    checkpoints: Checkpoints, router_folder: Path, tmp_path: Path
) -> None:
    with graded(checkpoints, router_folder, tmp_path, FAILS, graded_share="1") as server:
        for _ in range(3):
            ask(server)
        server.until(lambda: state_of_grades(server)["failed"] == 3, timeout_s=60)
        arrived(server, sqlite_url(server), DecisionRow, 3)
        assert rows(sqlite_url(server), OutcomeRow) == []


def test_a_router_is_trained_on_graded_answers_beside_pairs(
    checkpoints: Checkpoints, router_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"graded_share": "1", "shadow_share": "0.75", "shadow_at_once": "4", "exploration": "0.5"}
    n_served, log = 170, tmp_path / "log.jsonl.gz"
    with graded(checkpoints, router_folder, tmp_path, HARD_OR_EASY, **settings) as server:
        for i in range(n_served):
            ask(server, f"{'a hard' if i % 3 else 'an easy'} question of number {i}")
            server.until(lambda: server.fetch("/v1/router/shadow").json["waiting"] < 30, timeout_s=120)

        def n_pairs() -> float:
            return {one["state"]: n for one, n in metric(server, "pointsman_shadow_pairs_total")}["done"]

        server.until(lambda: n_pairs() + state_of_grades(server)["done"] == n_served, timeout_s=300)
        arrived(server, sqlite_url(server), OutcomeRow, int(n_served + n_pairs()))
        n_both = int(n_pairs())
    folder = ["--data-dir", str(tmp_path)]
    assert main(["router", "export-log", "--out", str(log), *folder]) == 0
    assert f"{n_served} outcomes" in capsys.readouterr().out
    found = read_outcomes([log])
    alone = [one for one in found if not one.has_both]
    assert (len(found), len(alone)) == (n_served, n_served - n_both)
    assert {round(one.weight, 6) for one in found if one.has_both} == {round(1 / 0.75, 6)}
    assert {one.propensity for one in found} >= {0.5}
    for one in alone:  # 1 is what was not left to chance, such as after a drift
        assert one.weight == 1 / (one.propensity or 0.0) / 0.25
    for one in alone:
        assert one.choice is not None
        assert one.choice.graded_prob == 0.25
        assert one.choice.reward == (one.weak_score if one.action is Action.SMALL else one.strong_score)
    pair = [f"--{name}={path}" for name, path in (("small", checkpoints.small), ("large", checkpoints.large))]
    assert main(["router", "train", "--data", str(log), "--out", str(tmp_path / "new"), *pair]) == 0
    assert RouterArtefact.load(tmp_path / "new").manifest.n_both == n_both
