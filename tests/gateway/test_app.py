"""The application as a whole: closed by default, traced, and drained before it stops."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.openai.guard import require_key
from gateway.settings import Settings
from tests.gateway.collector import Collector
from tests.gateway.server import Checkpoints, GatewayServer, run_server

OPEN = {"/health", "/health/live", "/health/ready", "/version"}
HI: list[Any] = [{"role": "user", "content": "hi"}]


def test_every_route_has_the_guard_and_only_health_is_open(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path))
    seen = set()
    for route in app.routes:
        for handler in route.route_handlers:
            assert require_key in handler.resolve_guards(), f"{route.path} has no guard"
            if handler.opt.get("open"):
                seen.add(route.path)
    assert seen == OPEN


@pytest.fixture(scope="module")
def spare_server(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A server that may be stopped."""
    with run_server(checkpoints, tmp_path_factory.mktemp("spare"), {}) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_trace_from_http_to_decode(
    routed_server: GatewayServer, collector: Collector, stream: bool
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    trace_id = bytes.fromhex(parent.split("-")[1])
    collector.spans.clear()
    reply = routed_server.chat(
        {"traceparent": parent}, model="auto", stream=stream, structured_outputs={"regex": "[ab]{3}"}
    )
    assert reply.headers["traceparent"].split("-")[1] == parent.split("-")[1]
    routed_server.until(lambda: len(collector.spans) >= 7)
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {
        "POST /v1/chat/completions",
        "grammar.compile",
        "route.decide",
        "chat auto",
        "engine.queue",
        "engine.prefill",
        "engine.decode",
    }
    assert {span.trace_id for span in collector.spans} == {trace_id}
    root = spans["POST /v1/chat/completions"]
    assert root.parent_span_id.hex() == parent.split("-")[2]
    for span in collector.spans:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    order = ["chat auto", "engine.queue", "engine.prefill", "engine.decode"]
    starts = [spans[name].start_time_unix_nano for name in order]
    assert starts == sorted(starts)
    assert {spans[name].parent_span_id for name in order[1:]} == {spans["chat auto"].span_id}


def test_a_stopping_server_finishes_what_runs_and_refuses_the_rest(spare_server: GatewayServer) -> None:
    with spare_server.client() as client:
        stream = client.chat.completions.create(
            model="small", messages=HI, stream=True, max_tokens=400, extra_body={"ignore_eos": True}
        )
        next(stream)
        spare_server.process.send_signal(signal.SIGTERM)
        spare_server.until(lambda: spare_server.fetch("/health/ready").status == 503)
        assert spare_server.fetch("/health/live").status == 200
        refused = spare_server.chat()
        chunks = list(stream)
    assert refused.status == 503
    assert refused.json["error"]["code"] == "draining"
    assert int(refused.headers["retry-after"]) > 0
    assert len(chunks) > 100, "the stream that ran went on to its end"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert spare_server.process.wait(20) == 0
