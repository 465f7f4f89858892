"""A second chance that goes wrong: clients that leave, an engine that dies or is full, answers that break."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.engine.checkpoints import END_ID, build_checkpoint
from tests.gateway.server import HIDDEN, Checkpoints, GatewayServer, run_server
from tests.gateway.test_cascade import ASKED, chunks, environment, events, is_idle, said, streamed
from tests.gateway.test_engine_death import check_has_one_outcome, engine_pid
from tests.gateway.test_invalid_answers import BROKEN

LONG = {"model": "auto", "messages": ASKED, "max_tokens": 1500, "ignore_eos": True, "temperature": 0}
"""Cut at its limit, so it escalates; long enough to be caught at it on either model."""


@pytest.fixture(scope="module")
def mortal(
    checkpoints: Checkpoints, judging_router: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """A server that escalates, runs one request of a model at a time, and lets one more wait."""
    settings = environment(
        judging_router,
        ROUTING_CASCADE="validation",
        ROUTING_HOLD_TOKENS="4",
        ENGINE_MAX_RUNNING="1",
        ENGINE_MAX_WAITING="1",
    )
    with run_server(checkpoints, tmp_path_factory.mktemp("mortal-cascade"), settings) as running:
        yield running


def send(server: GatewayServer, **fields: Any) -> socket.socket:
    """A raw connection on which a chat request was sent."""
    body = json.dumps(LONG | fields).encode()
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def is_generating(server: GatewayServer, model: str) -> bool:
    """Whether the model has written some tokens of what it is at."""
    numbers = server.engine(model)
    return numbers["num_requests_running"] == 1 and numbers["held"] == 0


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize(
    ("model", "fields"),
    [("small", {}), ("large", {}), ("large", {"stream": True, "max_tokens": 3}), ("large", {"n": 1, "seed": 3})],
    ids=["first answer", "second answer", "stream", "seeded"],
)
def test_a_client_that_leaves_frees_both_models(
    mortal: GatewayServer, model: str, fields: dict[str, Any], abruptly: bool
) -> None:
    mortal.until(lambda: is_idle(mortal))
    with contextlib.ExitStack() as blocked:
        if fields.get("stream"):  # three tokens are over in no time: another request holds the second answer up
            blocked.enter_context(send(mortal, model="large", max_tokens=3500))
            mortal.until(lambda: is_generating(mortal, "large"))
        with send(mortal, **fields) as connection:
            if fields.get("stream"):
                mortal.until(lambda: mortal.engine("large")["num_requests_waiting"] == 1)
            else:
                mortal.until(lambda: is_generating(mortal, model))
            if abruptly:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fields.get("stream"):
            mortal.until(lambda: mortal.engine("large")["num_requests_waiting"] == 0, timeout_s=1.5)
    assert mortal.until(lambda: is_idle(mortal)) < 1.5


def test_a_client_that_leaves_while_the_second_answer_is_made_is_recorded_with_both(mortal: GatewayServer) -> None:
    mortal.until(lambda: is_idle(mortal))
    generated = mortal.engine("large")["tokens_generated"]
    with send(mortal, user="leaver"):
        mortal.until(lambda: mortal.engine("large")["tokens_generated"] > generated + 5)
    query = (
        "SELECT r.status, r.model_served, d.escalated, r.cost_discarded_usd FROM requests r"
        " JOIN decisions d ON d.request_id = r.id WHERE r.user = ?"
    )
    [(status, served, escalated, discarded_usd)] = sqlite_rows(mortal, query, "leaver")
    assert (status, served, escalated) == (499, "large", 1)
    assert discarded_usd > 0


@pytest.mark.parametrize("model", ["small", "large"], ids=["first answer", "second answer"])
def test_an_engine_that_dies_is_one_clear_error(mortal: GatewayServer, model: str) -> None:
    mortal.until(lambda: is_idle(mortal))
    with ThreadPoolExecutor(1) as threads:
        content = [{"role": "user", "content": f"a long one for the {model} model"}]
        reply = threads.submit(lambda: mortal.chat(**{**LONG, "messages": content}))
        mortal.until(lambda: is_generating(mortal, model))
        os.kill(engine_pid(mortal), signal.SIGKILL)
        check_has_one_outcome(reply.result(30))
    mortal.until(lambda: mortal.fetch("/health").status == 200, timeout_s=30)
    assert mortal.chat(model="auto", messages=ASKED, max_tokens=4).json["router"]["escalated"] is True
    mortal.until(lambda: is_idle(mortal))


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_large_model_is_full_the_small_answer_is_sent(mortal: GatewayServer, stream: bool) -> None:
    mortal.until(lambda: is_idle(mortal))
    fields = {"messages": ASKED, "max_tokens": 3, "temperature": 0}
    small = mortal.chat(model="small", **fields)
    with send(mortal, model="large", max_tokens=3500):
        mortal.until(lambda: is_generating(mortal, "large"))
        with send(mortal, model="large", max_tokens=3500):
            mortal.until(lambda: mortal.engine("large")["num_requests_waiting"] == 1)
            reply = mortal.chat(model="auto", stream=stream, **fields)
    if stream:
        assert streamed(reply) == (small.json["choices"][0]["message"]["content"], "length", {small.json["model"]})
        router = chunks(reply)[-1]["router"]
    else:
        assert said(reply) == said(small)
        router = reply.json["router"]
        assert "discarded" not in reply.json["usage"]["completion_tokens_details"]
        assert reply.json["model"] == small.json["model"]
    assert (router["model"], router["escalated"]) == ("small", False)
    assert router["escalate_reason"] == "escalation_refused"
    forgone = 'pointsman_escalations_forgone_total{reason="escalation_refused"}'
    assert forgone in mortal.fetch("/metrics").body.decode()
    mortal.until(lambda: is_idle(mortal))


BROKEN_SMALL = BROKEN.replace(
    "module.CompiledConstraint.matcher = lambda self: Broken(self._vocabulary)",
    "whole = module.CompiledConstraint.matcher\n"
    "            module.CompiledConstraint.matcher = lambda self: (\n"
    "                Broken(self._vocabulary) if self._vocabulary.text_row.numel() > 12 else whole(self)\n"
    "            )",
)
"""As BROKEN, but only for a vocabulary of more than 12 words of 32 tokens: the small model's."""


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """A pair with two tokenizers, of 512 and of 384 tokens. It has no router: by the rule `auto-cost` is small."""
    folder = tmp_path_factory.mktemp("two-vocabularies")
    pair = Checkpoints(folder / "small", folder / "large")
    build_checkpoint(pair.small, "llama", seed=1, hidden_size=HIDDEN, max_position_embeddings=2048)
    build_checkpoint(pair.large, "qwen3", seed=2, max_position_embeddings=2048, vocab_size=384)
    return pair


@pytest.fixture(scope="module", params=[BROKEN_SMALL, BROKEN], ids=["small broken", "both broken"])
def broken(
    request: pytest.FixtureRequest, unlike: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GatewayServer, bool]]:
    """A server whose masks are broken, which holds whole streams back; and whether the large model's are, too."""
    folder: Path = tmp_path_factory.mktemp("broken-cascade")
    (folder / "sitecustomize.py").write_text(request.param)
    settings = {"POINTSMAN_ROUTING_HOLD_TOKENS": "400", "PYTHONPATH": f"{folder}:{Path.cwd()}"}
    with run_server(unlike, folder, settings) as running:
        yield running, request.param == BROKEN


CHOICES = ["yes it is so", "no it is not"]
ENDED = {"structured_outputs": {"choice": CHOICES}, "min_tokens": 3, "logit_bias": {str(END_ID): 100}}
"""A constraint, and an end as soon as masks allow one."""


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_its_constraint_is_answered_again(
    broken: tuple[GatewayServer, bool], stream: bool
) -> None:
    server, is_large_broken = broken
    user = f"again-{stream}"
    assert server.chat(model="small", messages=ASKED, max_tokens=400, **ENDED).status == 500
    reply = server.chat(model="auto-cost", messages=ASKED, max_tokens=400, stream=stream, user=user, **ENDED)
    if is_large_broken and stream:
        *told, last = events(reply)
        assert last["error"]["code"] == "constraint_violated"
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in told)
        assert {chunk["model"] for chunk in told} == {server.chat(model="large").json["model"]}
    elif is_large_broken:
        assert (reply.status, reply.json["error"]["code"]) == (500, "constraint_violated")
    else:
        assert reply.status == 200, reply.body
        text = streamed(reply)[0] if stream else said(reply)[0]
        router = chunks(reply)[-1]["router"] if stream else reply.json["router"]
        assert text in CHOICES
        assert (router["model"], router["escalate_reason"]) == ("large", "invalid")
    rows = sqlite_rows(server, "SELECT valid, model_served FROM requests WHERE user = ?", user)
    assert rows == [(not is_large_broken, "large")], "the verdict is that on the answer which was sent"
    server.until(lambda: is_idle(server))


def sqlite_rows(server: GatewayServer, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Rows of the server's database, once there are any."""

    def rows() -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(server.log.parent / "pointsman.sqlite3")) as database:
            return database.execute(query, values).fetchall()

    server.until(lambda: len(rows()) > 0)
    return rows()


def test_models_with_different_tokenizers_escalate_all_the_same(unlike: Checkpoints, tmp_path: Path) -> None:
    with run_server(unlike, tmp_path, {}) as server:
        for sampling in ({"temperature": 0}, {"temperature": 1, "seed": 4}):
            asked = {"messages": ASKED, "max_tokens": 9, "structured_outputs": {"regex": "[a-z]{80}"}, **sampling}
            escalated, large = server.chat(model="auto-cost", **asked), server.chat(model="large", **asked)
            assert escalated.json["router"]["escalate_reason"] == "length"
            assert said(escalated) == said(large)
        only = " ".join(f"step {number}" for number in range(40))
        reply = server.chat(
            model="auto-cost", messages=ASKED, max_tokens=50, structured_outputs={"regex": f"[a-z]?{only}x*"}
        )
        details = reply.json["usage"]["completion_tokens_details"]
        taken = details["speculation"]["by_proposer"].get("prediction", {"accepted": 0})["accepted"]
        assert taken + details["speculation"]["forced"] > 10, "the small answer was encoded anew"
        server.until(lambda: is_idle(server))
