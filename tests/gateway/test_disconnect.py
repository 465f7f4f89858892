"""A client that goes away frees the engine within a second, streaming or not; so does one that never sends its body."""

import asyncio
import json
import socket
from typing import Any

import pytest

from gateway.openai.disconnect import ClientDisconnected, unless_disconnected
from tests.gateway.server import GatewayServer

LONG = {"max_tokens": 3500, "ignore_eos": True}


def send(server: GatewayServer, **fields: Any) -> socket.socket:
    """A raw connection on which a chat request was sent."""
    defaults = {"model": "large", "messages": [{"role": "user", "content": "hi"}], **LONG}
    body = json.dumps(defaults | fields).encode()
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def is_idle(server: GatewayServer, model: str) -> bool:
    stats = server.engine(model)
    return (
        stats["num_requests_running"] == stats["num_requests_waiting"] == stats["kv_blocks_used"] == stats["held"] == 0
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False},
        {"stream": True},
        {"stream": False, "n": 3},
        {"stream": True, "n": 3, "model": "small"},
        {"stream": True, "structured_outputs": {"regex": "[a-z]+"}, "min_tokens": 3400},
    ],
)
@pytest.mark.parametrize("abruptly", [False, True])
def test_blocks_are_free_within_a_second(server: GatewayServer, fields: dict[str, Any], abruptly: bool) -> None:
    model = str(fields.get("model", "large"))
    server.until(lambda: is_idle(server, model))
    cancelled = server.engine(model)["finished_cancelled"]
    connection = send(server, **fields)
    server.until(lambda: server.engine(model)["num_requests_running"] == fields.get("n", 1))
    if fields["stream"]:
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
    if abruptly:  # a reset instead of a farewell
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()
    assert server.until(lambda: is_idle(server, model)) < 1.0
    assert server.engine(model)["finished_cancelled"] == cancelled + fields.get("n", 1)


def test_the_record_of_a_client_that_left_has_its_tokens(server: GatewayServer) -> None:
    before = server.fetch("/metrics").body.decode()
    generated = server.engine("large")["generation_tokens"]
    with send(server, stream=True) as connection:
        read = b""
        while read.count(b"data: ") < 5:
            read += connection.recv(4096)
    server.until(lambda: is_idle(server, "large"))
    server.until(lambda: server.engine("large")["generation_tokens"] > generated)
    after = server.fetch("/metrics").body.decode()

    def left(text: str) -> float:
        name = 'pointsman_requests_total{model="large",status="499"} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    assert left(after) == left(before) + 1


def test_half_a_body_costs_nothing(server: GatewayServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100\r\n\r\n{{".encode()
        )
    assert server.chat().status == 200
    server.until(lambda: is_idle(server, "small"))


def test_clients_that_leave_write_no_errors_into_the_log(server: GatewayServer) -> None:
    before = server.log.read_text()
    connection = send(server, stream=False, model="small")
    server.until(lambda: server.engine("small")["num_requests_running"] == 1)
    connection.close()
    server.until(lambda: is_idle(server, "small"))
    assert server.chat().status == 200
    said = server.log.read_text().removeprefix(before)
    assert "Traceback" not in said
    assert "ERROR" not in said


class Wire:
    """An ASGI `receive` that stays silent until the client is told to leave."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_work_that_ends_first_returns_its_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await unless_disconnected(Wire().receive, work()) == 7


async def test_work_is_cancelled_and_cleans_up_before_the_caller_goes_on() -> None:
    wire, cleaned = Wire(), []

    async def work() -> None:
        try:
            wire.left.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    with pytest.raises(ClientDisconnected):
        await unless_disconnected(wire.receive, work())
    assert cleaned == [True]


async def test_an_error_of_the_work_is_passed_on() -> None:
    async def work() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await unless_disconnected(Wire().receive, work())
