"""Real server processes on tiny random checkpoints: one as a newcomer starts it, one with a router and a key."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from engine.loaded_model import fingerprint
from gateway.cli import main
from router_model.artefact import RouterArtefact
from router_model.commands import train
from router_model.outcomes import OutcomeRow, StateBlob, write_outcomes
from tests.engine.checkpoints import build_checkpoint
from tests.gateway.collector import Collector

START_LIMIT_S = 90.0
HIDDEN = 64


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Folders of a pair that shares its tokenizer and template. Its window is long enough to catch it in the middle."""

    small: Path
    large: Path


@dataclass(slots=True)
class GatewayServer:
    """A `pointsman serve` process."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path
    key: str = "none-needed"

    def client(self, **options: Any) -> openai.OpenAI:
        """The official client, without retries."""
        return openai.OpenAI(**{"base_url": f"{self.url}/v1", "api_key": self.key, "max_retries": 0, **options})

    def async_client(self) -> openai.AsyncOpenAI:
        """The official asynchronous client, without retries."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def fetch(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
    ) -> "Reply":
        """One plain HTTP request; POST when there is a body."""
        request = urllib.request.Request(  # noqa: S310
            self.url + path,
            body,
            {"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def chat(self, headers: Mapping[str, str] | None = None, **fields: Any) -> "Reply":
        """A chat request with these fields."""
        defaults = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        return self.fetch("/v1/chat/completions", json.dumps(defaults | fields).encode(), headers)

    def decide(self, headers: Mapping[str, str] | None = None, **fields: Any) -> "Reply":
        """A dry run of such a request."""
        defaults = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        return self.fetch("/v1/router/decide", json.dumps(defaults | fields).encode(), headers)

    def engine(self, model: str) -> dict[str, float]:
        """The engine's counters and gauges of one model, from /metrics, without prefix and suffix."""
        numbers = {}
        for line in self.fetch("/metrics").body.decode().splitlines():
            if line.startswith("pointsman_") and f'{{model="{model}"}}' in line:
                name, value = line.split(" ")
                short = name.partition("{")[0].removeprefix("pointsman_").removeprefix("engine_")
                numbers[short.removesuffix("_total")] = float(value)
        return numbers

    def until(self, is_true: Any, timeout_s: float = 10.0) -> float:
        """Seconds until `is_true()`; fails after `timeout_s`."""
        began = time.monotonic()
        while not is_true():
            assert time.monotonic() - began < timeout_s, f"nothing changed within {timeout_s} s"
            time.sleep(0.01)
        return time.monotonic() - began

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The pair that the servers run."""
    folder = tmp_path_factory.mktemp("checkpoints")
    pair = Checkpoints(folder / "tiny-small", folder / "tiny-large")
    build_checkpoint(pair.small, "llama", seed=1, hidden_size=HIDDEN, max_position_embeddings=4096)
    build_checkpoint(pair.large, "qwen3", seed=2, max_position_embeddings=4096)
    return pair


@pytest.fixture(scope="session")
def server(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """As a newcomer starts it: no key, no router."""
    with run_server(checkpoints, tmp_path_factory.mktemp("server"), {}) as running:
        yield running


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the routed server's traces go."""
    running = Collector()
    yield running
    running.close()


@pytest.fixture(scope="session")
def routed_server(
    checkpoints: Checkpoints, router_folder: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """With a router that sends `auto` to the small and `auto-quality` to the large model and leaves it there, with a
    key, strict parameters, and traces that go to `collector`."""
    data_dir = tmp_path_factory.mktemp("routed")
    environment = {
        "POINTSMAN_ROUTER": str(router_folder),
        "POINTSMAN_ROUTING_QUALITY_TARGET": "0",
        "POINTSMAN_ROUTING_EXPLORATION": "0",
        "POINTSMAN_ROUTING_CASCADE": "off",
        "POINTSMAN_STRICT_PARAMS": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "POINTSMAN_ACCOUNTS_CACHE_S": "0.1",
    }
    with run_server(checkpoints, data_dir, environment) as running:
        running.key = _created_key(running, data_dir)
        yield running


def _created_key(server: GatewayServer, data_dir: Path) -> str:
    """A new key for a running server, once it asks for one."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["keys", "create", "tests", "--data-dir", str(data_dir)]) == 0
    server.until(lambda: server.fetch("/v1/models").status == 401)
    return said.getvalue().strip()


@pytest.fixture(scope="session")
def router_folder(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A router for the pair, trained on made-up outcomes in which the large model is always right, the small rarely.

    Nothing is out of its domain, so that thresholds alone decide.
    """
    folder = tmp_path_factory.mktemp("router")
    rng = np.random.default_rng(0)
    rows = [
        OutcomeRow(
            id=str(i),
            prompt=f"question {i}",
            weak_correct=float(rng.random() < 0.2),
            strong_correct=1.0,
            state=StateBlob.of(rng.normal(size=(2, 2, HIDDEN))),
            entropy=float(rng.random()),
            margin=float(rng.random()),
        )
        for i in range(120)
    ]
    write_outcomes(folder / "outcomes.jsonl", rows)
    small, large = fingerprint(checkpoints.small), fingerprint(checkpoints.large)
    train([folder / "outcomes.jsonl"], folder / "router", small_model=small, large_model=large, show=lambda _: None)
    trained = RouterArtefact.load(folder / "router")
    dataclasses.replace(trained, model=dataclasses.replace(trained.model, radius=1e9)).save(folder / "router")
    return folder / "router"


@pytest.fixture(scope="session")
def judging_router(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `router_folder`, from outcomes with the small model's answers, which are right where their tokens were likely.

    It expects answers of one token, so that any text which reaches its limit is longer than it should be.
    """
    folder = tmp_path_factory.mktemp("judging-router")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(150):
        likely = rng.random()
        rows.append(
            OutcomeRow(
                id=str(i),
                prompt=f"question {i}",
                weak_correct=float(rng.random() < likely / 2),
                strong_correct=1.0,
                state=StateBlob.of(rng.normal(size=(2, 2, HIDDEN))),
                entropy=float(rng.random()),
                margin=float(rng.random()),
                weak_response="some words " * int(rng.integers(1, 9)),
                small_logprob_mean=float(-3 * (1 - likely)),
                small_logprob_min=float(-9 * (1 - likely)),
                small_valid=True,
                small_tokens=1,
                large_tokens=1,
            )
        )
    write_outcomes(folder / "outcomes.jsonl", rows)
    small, large = fingerprint(checkpoints.small), fingerprint(checkpoints.large)
    train([folder / "outcomes.jsonl"], folder / "router", small_model=small, large_model=large, show=lambda _: None)
    trained = RouterArtefact.load(folder / "router")
    assert trained.cascade is not None
    dataclasses.replace(trained, model=dataclasses.replace(trained.model, radius=1e9)).save(folder / "router")
    return folder / "router"


@contextlib.contextmanager
def run_server(checkpoints: Checkpoints, data_dir: Path, environment: Mapping[str, str]) -> Iterator[GatewayServer]:
    """A server process, ready to answer; ended at the latest when the block is left."""
    port = free_port()
    arguments = ["--port", str(port), "--data-dir", str(data_dir)]
    arguments += ["--small", str(checkpoints.small), "--large", str(checkpoints.large)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    log = data_dir / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", *arguments],
            env=inherited
            | {
                "OMP_NUM_THREADS": "1",
                "POINTSMAN_ENGINE_THREADS": "1",
                "POINTSMAN_ENGINE_DTYPE": "float32",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = GatewayServer(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(server: GatewayServer) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_LIMIT_S:
        assert server.process.poll() is None, f"the server ended while it started:\n{server.log.read_text()}"
        with contextlib.suppress(OSError):
            if server.fetch("/health/ready").status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server was not ready after {START_LIMIT_S} s:\n{server.log.read_text()}")


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
