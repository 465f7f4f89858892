"""Wrong answers on a real server: told through the API or by the grader of shadow pairs, they end the promise."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.rows import post
from tests.gateway.server import Checkpoints, GatewayServer, run_server

ALWAYS_WRONG = "import sys; sys.stdin.read(); print(0.0)"


@pytest.fixture
def routed(checkpoints: Checkpoints, router_folder: Path, tmp_path: Path) -> Iterator[GatewayServer]:
    """One that expects right answers of the large model, reads every prefill, and has a grader that likes nothing."""
    grader = tmp_path / "grader.py"
    grader.write_text(ALWAYS_WRONG)
    environment = {
        "POINTSMAN_ROUTER": str(router_folder),
        "POINTSMAN_ROUTING_EXPLORATION": "0",
        "POINTSMAN_ROUTING_EARLY": "false",
        "POINTSMAN_ROUTING_SHADOW_AT_ONCE": "4",
        "POINTSMAN_ROUTING_GRADER_COMMAND": f"{shlex.quote(sys.executable)} -S {shlex.quote(str(grader))}",
        "POINTSMAN_ROUTING_GRADER_TIMEOUT_S": "60",
    }
    with run_server(checkpoints, tmp_path, environment) as running:
        yield running


def asked(server: GatewayServer, number: int = 0, model: str = "auto-quality", **wishes: Any) -> Any:
    """The `router` object of a new answer."""
    reply = server.chat(
        model=model,
        messages=[{"role": "user", "content": f"Question {number}?"}],
        max_tokens=2,
        router={"cascade": "off", "explain": True, **wishes},
    )
    assert reply.status == 200
    return reply.json["router"]


def modest(server: GatewayServer) -> Any:
    """The same for a wish that the small model fulfils by far."""
    return asked(server, 1_000, "auto", quality=0.05)


def has_promise(server: GatewayServer) -> bool:
    router = modest(server)
    if router["calibrated"]:
        assert (router["choice"], router["explain"]["drift"]) == ("small", [])
    return bool(router["calibrated"])


def says_why(server: GatewayServer, reason: str) -> None:
    """What is decided now goes large without a promise, and the answer, the report and its page say why."""
    router = modest(server)
    assert (router["choice"], router["calibrated"], router["reason"]) == ("large", False, "uncalibrated")
    assert router["explain"]["drift"] == [reason]
    page = server.fetch("/v1/router/report?format=html").body
    assert b"uncalibrated (" in page
    assert b"no drift is known" not in page

    def state() -> Any:
        return server.fetch("/v1/router/report").json["state"]

    server.until(lambda: state()["uncalibrated_share"] > 0)
    assert state()["drift"] == [reason]


def tell(server: GatewayServer, decisions: list[str], **said: Any) -> None:
    assert post(server, "/v1/router/outcomes", [{"decision_id": one, **said} for one in decisions]).status == 200


def test_wrong_answers_that_clients_report_end_the_promise(routed: GatewayServer) -> None:
    answered = [asked(routed, number) for number in range(25)]
    assert all(one["model"] == "large" and one["p_large"] > 0.9 for one in answered)
    decisions = [one["decision_id"] for one in answered]
    tell(routed, decisions, feedback=-1)
    assert has_promise(routed), "a dislike is no score"
    tell(routed, decisions[:1] * 100, correct=False)
    assert has_promise(routed), "one answer counts once"
    tell(routed, decisions[1:], correct=False)
    assert not has_promise(routed)
    says_why(routed, "calibration_large")


def test_wrong_answers_of_shadow_pairs_end_the_promise(routed: GatewayServer) -> None:
    assert has_promise(routed)
    post(routed, "/v1/router/shadow", {"share": 1.0})
    for number in range(25):
        asked(routed, number)
    routed.until(lambda: routed.fetch("/v1/router/shadow").json["counts"]["answered"] >= 25, timeout_s=120)
    says_why(routed, "calibration_large")
