"""Constraints made to hang a server, over HTTP: each is answered soon and in plain words, and others are served."""

import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.bomb_corpus import bombs, request_fields
from tests.gateway.server import Checkpoints, GatewayServer, run_server

LIMIT_S = 2.5
ORDINARY = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    }
}


@pytest.fixture(scope="module")
def fresh_server(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A server that has answered nothing."""
    with run_server(checkpoints, tmp_path_factory.mktemp("fresh"), {}) as running:
        yield running


def test_a_server_that_is_ready_has_the_process_that_tries_constraints_out(fresh_server: GatewayServer) -> None:
    grammar = {"structured_outputs": {"grammar": 'root ::= "(" root ")" | "x"'}}
    began = time.monotonic()
    reply = fresh_server.chat(max_tokens=2, **grammar)
    assert reply.status == 200, reply.json
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_answered_soon_and_in_plain_words(server: GatewayServer, name: str) -> None:
    fields = request_fields(bombs()[name])
    for _ in range(10):
        began = time.monotonic()
        reply = server.chat(max_tokens=8, **fields)
        assert time.monotonic() - began < LIMIT_S
        if reply.status != 503:  # a busy machine gives the probe, which comes last, too little time: it says so
            break
        assert reply.json["error"]["code"] == "compile_timeout"
        time.sleep(float(reply.headers["retry-after"]))
    assert reply.status in {200, 400, 413}, reply.json
    if reply.status != 200:
        assert len(reply.json["error"]["message"]) > 20
    ordinary = server.chat(max_tokens=8, **ORDINARY)
    assert ordinary.status == 200, ordinary.json


def test_a_storm_of_bombs_keeps_no_ordinary_request_waiting(server: GatewayServer) -> None:
    slow = {"type": "integer", "allOf": [{"multipleOf": n} for n in (97, 89, 83, 79)]}
    statuses: list[int] = []

    def fire(i: int) -> None:
        schema = {**slow, "minimum": i}  # each is new to the cache
        form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}}
        statuses.append(server.chat(response_format=form).status)

    threads = [threading.Thread(target=fire, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    seconds = []
    for i in range(10):
        schema = {"type": "object", "properties": {f"p{i}": {"type": "integer"}}}  # compiled, not remembered
        began = time.monotonic()
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        assert server.chat(max_tokens=4, response_format=form).status == 200
        seconds.append(time.monotonic() - began)
    for thread in threads:
        thread.join()
    assert set(statuses) <= {400, 503}, "refused for its CPU time, or told to come again"
    assert sorted(seconds)[len(seconds) // 2] < 1.0
