"""The BFCL harness over HTTP: against a server that misbehaves as told, and against the real one."""

import asyncio
import contextlib
import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import openai
import pytest

from benchmarks.bfcl.__main__ import main
from benchmarks.bfcl.ast_rules import Call, Finding, Mistake
from benchmarks.bfcl.client import Asking, Reply, UnusableServer, ask, pause_s
from benchmarks.bfcl.report import report
from benchmarks.bfcl.rows import Category, ExpectedCall, Function, Row
from benchmarks.bfcl.tally import Tally
from bundled_models.share import Share
from tests.gateway.server import Checkpoints, GatewayServer, run_server

BUNDLED = Path(__file__).parents[2] / "bundled_models"

# ---- a server that misbehaves --------------------------------------------------------------------------------------


class Scripted(http.server.ThreadingHTTPServer):
    """Answers with (status, headers, body) one after the other, the last of them for ever."""

    def __init__(self, *script: tuple[int, dict[str, str], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.times, self.bodies = list(script), list[float](), list[dict[str, Any]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.times.append(time.monotonic())
        self.server.bodies.append(json.loads(body))
        script = self.server.script
        status, headers, reply = script.pop(0) if len(script) > 1 else script[0]
        data = json.dumps(reply).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def scripted(*script: tuple[int, dict[str, str], Any]) -> Iterator[Scripted]:
    with Scripted(*script) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def completion(*calls: tuple[str, str], finish_reason: str = "tool_calls") -> dict[str, Any]:
    said = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": None if calls else "I can't.", "tool_calls": said or None}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37},
    }


def failure(code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "t", "code": code, "param": param}}


WATER = Function(
    "garden.water",
    {
        "type": "dict",
        "properties": {"plant": {"type": "string"}, "minutes": {"type": "integer"}},
        "required": ["plant"],
    },
    "Waters a plant.",
)
MOW = Function("garden_mow", {"type": "dict", "properties": {"height_cm": {"type": "float"}}, "required": []})
FERNS = ExpectedCall("garden.water", {"plant": ["ferns"], "minutes": [5, ""]})
RIGHT = completion(("garden_water", '{"plant": "Ferns"}'))


def row(name: str = "r", category: Category = "simple", *expected: ExpectedCall) -> Row:
    return Row(name, category, ({"role": "user", "content": "Water the ferns."},), (WATER, MOW), expected or (FERNS,))


def asked(server: Scripted, asking: Asking | None = None) -> Reply:
    async def run() -> Reply:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0, timeout=5) as client:
            return await ask(client, asking or Asking("m"), row())

    return asyncio.run(run())


def test_a_reply_is_read_with_the_datas_names_and_the_servers_tokens() -> None:
    calls = completion(("garden_water", '{"plant": "ferns"}'), ("garden_mow", "{}"), ("garden.water", "{}"))
    with scripted((200, {}, calls)) as server:
        reply = asked(server)
    assert reply.calls[:2] == (Call("garden.water", {"plant": "ferns"}), Call("garden_mow", {}))
    assert reply.calls[2].name not in ("garden.water", "garden_water")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.retries) == (30, 7, 0)
    assert reply.latency_s > 0
    assert [tool["function"]["name"] for tool in server.bodies[0]["tools"]] == ["garden_water", "garden_mow"]


@pytest.mark.parametrize("arguments", ['{"plant": ', "[1]", "null", ""])
def test_arguments_that_are_no_object_are_kept_as_unreadable(arguments: str) -> None:
    with scripted((200, {}, completion(("garden_water", arguments), finish_reason="length"))) as server:
        reply = asked(server)
    assert reply.calls == (Call("garden.water", None),)
    assert reply.is_cut


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(status: int) -> None:
    with scripted((status, {"retry-after": "0.3"}, failure()), (200, {}, RIGHT)) as server:
        reply = asked(server)
    assert reply.failure is None
    assert reply.retries == 1
    assert server.times[1] - server.times[0] >= 0.3
    assert reply.latency_s < 0.3  # of the answer, without the pause


def test_a_server_that_stays_busy_is_a_server_error_after_the_last_retry() -> None:
    with scripted((429, {"retry-after": "0"}, failure())) as server:
        reply = asked(server, Asking("m", retries=3))
    assert len(server.times) == 4
    assert reply.failure is not None
    assert reply.failure.mistake is Mistake.SERVER


@pytest.mark.parametrize(
    ("status", "error", "mistake"),
    [
        (400, failure("constraint_refused", "tools"), Mistake.REFUSED_SCHEMA),
        (400, failure("invalid_function_parameters", "tools[0].function.parameters"), Mistake.REFUSED_SCHEMA),
        (422, failure(None, "tools"), Mistake.REFUSED_SCHEMA),
        (400, failure("context_length_exceeded", "messages"), Mistake.SERVER),
        (500, failure(None, "tools"), Mistake.SERVER),
        (200, {"choices": []}, Mistake.SERVER),
        (200, {"error": "overloaded"}, Mistake.SERVER),
    ],
)
def test_a_failure_is_named_and_not_asked_again(status: int, error: Any, mistake: Mistake) -> None:
    with scripted((status, {}, error)) as server:
        reply = asked(server)
    assert len(server.times) == 1
    assert reply.failure is not None
    assert reply.failure.mistake is mistake


def test_a_closed_connection_is_a_server_error() -> None:
    with Scripted() as closed:
        pass
    reply = asked(closed)
    assert reply.failure is not None
    assert reply.failure.mistake is Mistake.SERVER


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_row_would_meet_ends_the_run(status: int) -> None:
    with scripted((status, {}, failure())) as server, pytest.raises(UnusableServer):
        asked(server)


def test_pauses_follow_retry_after_and_double_without_it() -> None:
    assert pause_s("2.5", 0) == 2.5
    assert 8 < pause_s(formatdate(time.time() + 10, usegmt=True), 0) <= 10
    assert pause_s(formatdate(time.time() - 10, usegmt=True), 3) == 0
    assert [pause_s(None, attempt) for attempt in range(3)] == [0.5, 1.0, 2.0]
    assert pause_s("soon", 1) == pause_s("nan", 1) == 1.0
    assert pause_s("86400", 0) == pause_s(None, 30) == 60


# ---- figures -------------------------------------------------------------------------------------------------------


def test_the_interval_is_wilsons() -> None:
    # Wilson's interval for 8 of 10, as tables give it
    share = Share.of([True] * 8 + [False] * 2)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert (Share.of([]).low, Share.of([]).high) == (0, 1)
    assert Share.of([True]).high == 1


def test_rows_and_categories_are_averaged_apart_and_failures_are_wrong() -> None:
    tally = Tally()
    good, text = Reply((Call("garden.water", {"plant": "ferns"}),), latency_s=0.2, completion_tokens=7), Reply()
    down = Reply(failure=Finding(Mistake.SERVER, "down"), latency_s=9.0, retries=2)
    for i, reply in enumerate((good, good, text)):
        tally.add(row(f"s{i}"), reply)
    irrelevant = Row("i", "irrelevance", row().messages, (WATER,), ())
    tally.add(irrelevant, down)
    figures = tally.as_json()
    assert tally.of_rows.share == 0.5
    assert tally.of_categories == pytest.approx((2 / 3 + 0) / 2)
    assert figures["mistakes"] == {"simple": {"text instead of call": 1}, "irrelevance": {"server error": 1}}
    assert {n: share["count"] for n, share in figures["by_tools"].items()} == {"1": 1, "2": 3}
    assert (figures["retries"], figures["unanswered"], figures["completion_tokens"]) == (2, 1, 14)
    assert figures["latency_ms"]["p95"] == 200  # the failure's nine seconds are no answer
    assert figures["wrong"] == {"s2": "text instead of call", "i": "server error"}
    assert "1 rows without an answer" in report(tally)
    assert "the first of those without an answer: down" in report(tally)


def test_what_is_right_by_an_unreadable_call_is_counted() -> None:
    tally = Tally()
    irrelevant = Row("i", "irrelevance", row().messages, (WATER,), ())
    tally.add(irrelevant, Reply((Call("garden.water", None),), is_cut=True))
    assert "right only" not in report(Tally())
    assert tally.of_rows.right == tally.as_json()["right_by_unreadable_call"] == 1
    assert "1 rows of irrelevance are right only because" in report(tally)


# ---- from the command line -----------------------------------------------------------------------------------------


def line(name: str, category: str, text: str, answer: list[Any] | None, *tools: dict[str, Any]) -> str:
    asked = {"question": [[{"role": "user", "content": text}]], "function": list(tools), "possible_answer": answer}
    return json.dumps({"id": name, "category": category} | asked)


def tool(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "dict", "properties": properties, "required": required}
    return {"name": name, "description": f"To {name.replace('.', ' ')}.", "parameters": parameters}


LAMP = tool(
    "lamp.set",
    ["room", "on"],
    room={"type": "string", "enum": ["kitchen", "hall"], "description": "Where the lamp is."},
    on={"type": "boolean", "description": "Whether it shines."},
    level={"type": "float", "minimum": 0, "maximum": 1, "optional": True, "description": "How bright."},
)
TIMER = tool("timer.start", ["minutes"], minutes={"type": "integer", "minimum": 1, "maximum": 90})
KITCHEN = {"lamp.set": {"room": ["kitchen"], "on": [True], "level": ["", 1.0]}}


def write_rows(folder: Path) -> Path:
    texts = {"lamp": "Switch on the lamp in the kitchen.", "two": "Light in the kitchen, and a timer for 5 minutes."}
    five = {"timer.start": {"minutes": [5]}}
    rows = [
        line("s", "simple", texts["lamp"], [KITCHEN], LAMP),
        line("m", "multiple", texts["lamp"], [KITCHEN], TIMER, LAMP),
        line("p", "parallel", "Timers for 5 and 5 minutes.", [five, five], TIMER),
        line("pm", "parallel_multiple", texts["two"], [KITCHEN, five], LAMP, TIMER),
        line("i", "irrelevance", "Who painted the ceiling?", None, LAMP),
    ]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def bundled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    pair = Checkpoints(BUNDLED / "small", BUNDLED / "large")
    with run_server(pair, tmp_path_factory.mktemp("bundled"), {}) as running:
        yield running


@pytest.mark.parametrize("options", [[], ["--closed"], ["--copy"]])
def test_calls_of_the_real_server_keep_to_the_tools(
    bundled_server: GatewayServer, tmp_path: Path, options: list[str]
) -> None:
    out = tmp_path / "figures.json"
    place = ["--data", str(write_rows(tmp_path)), "--base-url", f"{bundled_server.url}/v1", "--model", "small"]
    assert main([*place, "--tool-choice", "required", "--json", str(out), *options]) == 0
    figures = json.loads(out.read_text())
    assert figures["rows"]["count"] == 5
    assert set(figures["by_category"]) == {"simple", "multiple", "parallel", "parallel_multiple", "irrelevance"}
    made = {kind: n for counts in figures["mistakes"].values() for kind, n in counts.items()}
    assert figures["mistakes"]["irrelevance"] == {"call on irrelevance": 1}  # a call was required
    # What the grammar makes impossible. Only an answer cut at the limit may hold half a call.
    assert not made.keys() & {"text instead of call", "missing required", "type error", "server error"}
    assert made.get("unreadable call", 0) <= figures["cut_answers"]
    assert figures["completion_tokens"] > 0
    assert figures["latency_ms"]["p95"] >= figures["latency_ms"]["p50"] > 0


def test_auto_asks_the_real_server_for_every_row(bundled_server: GatewayServer, tmp_path: Path) -> None:
    out, wrong = tmp_path / "figures.json", tmp_path / "wrong.jsonl"
    place = ["--data", str(write_rows(tmp_path)), "--base-url", f"{bundled_server.url}/v1", "--model", "large"]
    assert main([*place, "--json", str(out), "--wrong", str(wrong), "--concurrency", "5"]) == 0
    figures = json.loads(out.read_text())
    assert (figures["rows"]["count"], figures["unanswered"]) == (5, 0)
    assert [json.loads(each)["id"] for each in wrong.read_text().splitlines()] == list(figures["wrong"])


def test_a_schema_that_the_real_server_cannot_hold_is_counted_and_ends_with_1(
    bundled_server: GatewayServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tool("echo", [], text={"type": "string", "pattern": r"^(a+)\1$"})
    data = tmp_path / "rows.jsonl"
    data.write_text(line("s", "simple", "Echo.", [{"echo": {"text": ["aa"]}}], odd))
    place = ["--data", str(data), "--base-url", f"{bundled_server.url}/v1", "--model", "small"]
    assert main([*place, "--categories", "simple"]) == 1
    printed = capsys.readouterr().out
    assert "refused schema" in printed
    assert "1 rows without an answer" in printed


def test_a_model_that_is_not_there_ends_with_its_message(
    bundled_server: GatewayServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data", str(write_rows(tmp_path)), "--base-url", f"{bundled_server.url}/v1", "--model", "no-such"]
    assert main(place) == 2
    assert "no-such" in capsys.readouterr().err


def test_data_that_is_not_there_ends_with_its_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--base-url", "http://127.0.0.1:1/v1", "--model", "m"]) == 2
    assert "has no *.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--limit", "--concurrency", "--max-tokens"])
def test_a_run_of_nothing_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", "x", "--base-url", "http://127.0.0.1:1/v1", "--model", "m", option, "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err


def test_the_harness_needs_nothing_of_the_server() -> None:
    check = (
        "import sys, benchmarks.bfcl.__main__\n"
        "print({m.split('.')[0] for m in sys.modules} & {'engine', 'grammars', 'gateway', 'kernels', 'torch'})"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
