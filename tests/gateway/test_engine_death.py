"""The engine killed, stopped and kept from starting, under load and over HTTP: each request gets one outcome, and
nothing is left of it."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.server import Checkpoints, GatewayServer, Reply, run_server

N_REQUESTS = 16


@pytest.fixture(scope="module")
def server(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A server whose engine may be killed, and which notices after few seconds when it hangs."""
    environment = {"POINTSMAN_ENGINE_SILENCE_S": "3"}
    with run_server(checkpoints, tmp_path_factory.mktemp("mortal"), environment) as running:
        yield running


def engine_pids(server: GatewayServer) -> list[int]:
    """The server's children, zombies among them."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def engine_pid(server: GatewayServer) -> int:
    [pid] = engine_pids(server)
    return pid


def open_files(server: GatewayServer) -> tuple[int, int]:
    """How many pages and sockets the server's process has open, which is what it needs for an engine."""
    kinds = []
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            kinds.append(str(entry.readlink()).partition(":")[0])
    return kinds.count("/memfd"), kinds.count("socket")


def endless(round_: int, number: int) -> dict[str, Any]:
    """A request that ends with the engine only; each has content of its own, so that none is ever poison."""
    fields: dict[str, Any] = {
        "model": ("small", "large")[number % 2],
        "messages": [{"role": "user", "content": f"round {round_}, request {number}"}],
        "max_tokens": 3500,
        "ignore_eos": True,
        "stream": number % 4 != 3,
    }
    if number % 8 == 5:
        fields |= {"structured_outputs": {"regex": "[a-z]+"}, "min_tokens": 3400}
    if number % 8 == 6:
        fields |= {"n": 2}
    return fields


def gauge(server: GatewayServer, name: str) -> float:
    """A metric without labels."""
    [value] = [
        line.split(" ")[1]
        for line in server.fetch("/metrics").body.decode().splitlines()
        if line.startswith(f"pointsman_{name} ")
    ]
    return float(value)


def is_idle(server: GatewayServer) -> bool:
    """Whether neither the gateway nor the engine still works on, waits for or holds anything."""
    if any(gauge(server, name) for name in ("requests_in_flight", "engine_calls", "engine_handles")):
        return False
    return not any(
        server.engine(model)[name]
        for model in ("small", "large")
        for name in ("num_requests_running", "num_requests_waiting", "held", "kv_blocks_used")
    )


def check_has_one_outcome(reply: Reply) -> None:
    """A 503 that says when to try again, or a stream whose one and only end is an error event."""
    if reply.status == 503:
        assert int(reply.headers["retry-after"]) > 0
        assert reply.json["error"]["code"] == "engine_died"
        return
    assert reply.status == 200
    data = [line.removeprefix("data: ") for line in reply.body.decode().splitlines() if line]
    *chunks, last = [json.loads(line) for line in data]  # [DONE] would be no JSON
    assert last["error"]["code"] == "engine_died"
    assert all("error" not in chunk for chunk in chunks)
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])


def strike(server: GatewayServer, round_: int, sign: signal.Signals) -> float:
    """Send the engine a signal while it serves 16 requests. All must get their outcome, the next one its answer.

    Returns the seconds from the signal to that answer.
    """
    files, old = open_files(server), engine_pid(server)
    with ThreadPoolExecutor(N_REQUESTS) as threads:
        replies: list[Future[Reply]] = [
            threads.submit(lambda number=number: server.chat(**endless(round_, number))) for number in range(N_REQUESTS)
        ]
        server.until(lambda: gauge(server, "requests_in_flight") == N_REQUESTS)
        server.until(lambda: all(server.engine(model)["num_requests_running"] >= 8 for model in ("small", "large")))
        os.kill(old, sign)
        began = time.monotonic()
        for reply in replies:
            check_has_one_outcome(reply.result(30))
        after = server.chat(
            messages=[{"role": "user", "content": f"after round {round_}"}], structured_outputs={"choice": ["a", "b"]}
        )
        assert (after.status, after.json["choices"][0]["message"]["content"] in ("a", "b")) == (200, True)
        seconds = time.monotonic() - began
    server.until(lambda: is_idle(server))
    assert engine_pid(server) != old
    # At the beginning the connection of an earlier request may not have been closed yet.
    server.until(lambda: all(now <= before for now, before in zip(open_files(server), files, strict=True)))
    return seconds


def test_a_killed_engine_costs_its_requests_one_error_each_and_comes_back(server: GatewayServer) -> None:
    strike(server, 0, signal.SIGKILL)
    health = server.fetch("/health")
    assert health.status == 200
    engine = health.json["engine"]
    assert (engine["restarts"], engine["last_death"]) == (1, "SIGKILL")
    assert engine["seconds_since_death"] > 0
    assert 0 <= engine["heartbeat_age_s"] < 3
    text = server.fetch("/metrics").body.decode()
    assert "pointsman_engine_restarts_total 1.0" in text
    assert 'pointsman_engine_last_death_timestamp_seconds{cause="SIGKILL"}' in text
    assert gauge(server, "engine_up") == 1
    assert gauge(server, "engine_heartbeat_age_seconds") < 3


@pytest.mark.full
def test_a_stopped_engine_is_killed_and_replaced(server: GatewayServer) -> None:
    seconds = strike(server, 1, signal.SIGSTOP)
    assert server.fetch("/health").json["engine"]["last_death"].startswith("silent for")
    print(f"answered {seconds:.1f} s after SIGSTOP")


@pytest.mark.full
def test_it_may_be_killed_again_and_again(server: GatewayServer) -> None:
    for round_ in (2, 3, 4):
        seconds = strike(server, round_, signal.SIGKILL)
        print(f"answered {seconds:.1f} s after SIGKILL")


@pytest.mark.full
def test_who_was_computed_at_two_deaths_is_refused_and_who_waited_beside_it_is_not(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    with run_server(checkpoints, tmp_path, {"POINTSMAN_ENGINE_MAX_RUNNING": "1"}) as server:
        culprit, neighbour = endless(9, 0), endless(9, 4)
        for _ in range(2):
            with ThreadPoolExecutor(2) as threads:
                running = threads.submit(lambda: server.chat(**culprit))
                server.until(lambda: server.engine("small").get("num_requests_running") == 1, 60)
                waiting = threads.submit(lambda: server.chat(**neighbour))
                server.until(lambda: server.engine("small").get("num_requests_waiting") == 1)
                os.kill(engine_pid(server), signal.SIGKILL)
                check_has_one_outcome(running.result(30))
                check_has_one_outcome(waiting.result(30))
        refused = server.chat(**culprit)
        assert (refused.status, refused.json["error"]["code"]) == (400, "poisoned")
        assert refused.headers["x-should-retry"] == "false"
        assert server.chat(**neighbour).status == 200


@pytest.mark.full
def test_an_engine_that_never_starts_is_said_to_be_unavailable_and_tried_ever_more_slowly(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    pair = Checkpoints(tmp_path / "small", tmp_path / "large")
    shutil.copytree(checkpoints.small, pair.small)
    shutil.copytree(checkpoints.large, pair.large)
    with run_server(pair, tmp_path, {}) as server:
        seen: list[int] = []
        until = time.monotonic() + 8
        while time.monotonic() < until:
            for pid in engine_pids(server):
                if pid not in seen:
                    seen.append(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        # Killed as soon as they come, and each after twice the pause: 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 s.
        assert 3 <= len(seen) <= 8
        health = server.fetch("/health")
        assert (health.status, health.json["status"]) == (503, "unavailable")
        assert health.json["engine"]["last_death"] == "the engine's process ended while it loaded: SIGKILL"
        began = time.monotonic()
        refused = server.chat()
        assert (refused.status, refused.json["error"]["code"]) == (503, "engine_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert time.monotonic() - began < 5, "nobody waits for what fails"
        assert gauge(server, "engine_up") == 0
        assert "num_requests_running" not in server.engine("small"), "what it was doing is not true any more"

        # Left alone it starts, finds no model any more, says so, and comes back with the model.
        (tmp_path / "large").rename(tmp_path / "elsewhere")
        server.until(lambda: "(path)" in server.fetch("/health").json["engine"]["last_death"], timeout_s=40)
        (tmp_path / "elsewhere").rename(tmp_path / "large")
        server.until(lambda: server.fetch("/health").status == 200, timeout_s=40)
        assert server.chat().status == 200
