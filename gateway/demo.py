"""`pointsman demo`: the main job on the bundled pair, through a real server process and the official OpenAI client."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
from pydantic import BaseModel

from bundled_models.cases import DEMO, Case, written

START_LIMIT_S = 90.0
ENOUGH_EXACT = 9


class Contact(BaseModel):
    """Who to write to: the demo's Pydantic model."""

    name: str
    email: str
    phone: str


class DemoFailed(Exception):
    """A step of the demo did not do what Pointsman promises."""


def run(settings_arguments: list[str]) -> int:
    """Run the demo against a server started with `settings_arguments`; return the exit code."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pointsman-demo-") as folder:
        environment = _environment(folder)
        _command(["migrate", *settings_arguments], environment)
        with _server(settings_arguments, environment, Path(folder)) as url:
            failed = _is_failed(url)
        print("\n== What routing did (pointsman report routing) ==", flush=True)
        _command(["report", "routing", *settings_arguments], environment)
    print(f"\n{'FAILED' if failed else 'Done'} in {time.perf_counter() - started:.0f} s.")
    return 1 if failed else 0


@contextlib.contextmanager
def running_server(settings_arguments: list[str]) -> Iterator[str]:
    """A server process with a data folder of its own, as the demo uses it; yields its address."""
    with (
        tempfile.TemporaryDirectory(prefix="pointsman-") as folder,
        _server(settings_arguments, _environment(folder), Path(folder)) as url,
    ):
        yield url


def _is_failed(url: str) -> bool:
    try:
        asyncio.run(_steps(url))
    except (DemoFailed, jsonschema_rs.ValidationError, openai.OpenAIError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return True
    return False


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "POINTSMAN_DATA_DIR": folder, "HF_HUB_OFFLINE": "1"}


# ---- the server process --------------------------------------------------------------------------------------------


def _command(arguments: list[str], environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "gateway", *arguments], env=environment, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _server(arguments: list[str], environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A `pointsman serve` process on a free port; its output goes to a file that is shown if it fails to start."""
    port, log = _free_port(), folder / "serve.log"
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), *arguments]
    url = f"http://127.0.0.1:{port}"
    print(f"Starting the gateway: pointsman serve --port {port}", flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, port, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    started = time.perf_counter()
    while time.perf_counter() - started < START_LIMIT_S:
        if process.poll() is not None:
            raise SystemExit(f"The gateway ended with code {process.returncode} while starting:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            if _is_ready(port):
                print(f"Ready after {time.perf_counter() - started:.1f} s.", flush=True)
                return
        time.sleep(0.1)
    raise SystemExit(f"The gateway was not ready after {START_LIMIT_S:.0f} s:\n{log.read_text()}")


# ---- the steps -----------------------------------------------------------------------------------------------------


async def _steps(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none-needed-on-loopback", max_retries=0) as client:
        cases = written(DEMO)
        calls = [c for c in cases if c.kind in ("call", "calls")]
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("A Pydantic model through chat.completions.parse", lambda: _parse(client)),
            ("A function call with three tools offered", lambda: _function_call(client, calls[0])),
            ("A streamed answer", lambda: _stream(client, calls[1])),
            ("The same request to auto, small and large", lambda: _every_model(client, calls[2])),
            ("A schema that must be refused", lambda: _refused(client)),
            ("16 requests at once", lambda: _at_once(client, cases)),
            (f"{len(cases)} calls and extractions that training never saw", lambda: _exact(client, cases)),
        ]
        for number, (title, step) in enumerate(steps, 1):
            print(f"\n== {number}. {title} ==", flush=True)
            await step()


async def _parse(client: openai.AsyncOpenAI) -> None:
    text = "Ask for Ada Okoye, her mail is ada@norrland.io and her phone 555-0172."
    reply = await client.chat.completions.parse(
        model="large",
        temperature=0,
        max_tokens=256,
        messages=[{"role": "system", "content": "Extract the contact."}, {"role": "user", "content": text}],
        response_format=Contact,
    )
    contact = reply.choices[0].message.parsed
    if not isinstance(contact, Contact):
        raise DemoFailed(f"the answer is no Contact: {reply.choices[0].message.content!r}")
    _show(text, repr(contact), reply.to_dict(warnings=False))


async def _function_call(client: openai.AsyncOpenAI, case: Case) -> None:
    reply = await _ask(client, case, "auto")
    _show(case.text, _answer(reply), reply)


async def _stream(client: openai.AsyncOpenAI, case: Case) -> None:
    print(f"  > {case.text}\n    ", end="")
    began, first, pieces = time.perf_counter(), 0.0, 0
    last: dict[str, Any] = {}
    stream = await client.chat.completions.create(
        **case.body("auto"), stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        for choice in chunk.choices:
            delta = choice.delta
            text = delta.content or "".join(
                (c.function.name or "") + (c.function.arguments or "") for c in delta.tool_calls or [] if c.function
            )
            if text:
                first = first or time.perf_counter() - began
                pieces += 1
                print(text, end="·", flush=True)
        last = chunk.to_dict() if chunk.usage else last
    print(f"\n    {pieces} pieces, the first after {1000 * first:.0f} ms at the client")
    _figures(last)


async def _every_model(client: openai.AsyncOpenAI, case: Case) -> None:
    for model in ("auto", "small", "large"):
        reply = await _ask(client, case, model)
        _show(f"[{model}] {case.text}", _answer(reply), reply)


async def _refused(client: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "https://example.com/elsewhere.json"}}, "required": ["a"]}
    request: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": "anything"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "remote", "schema": schema}},
    }
    try:
        await client.chat.completions.create(**request)
    except openai.BadRequestError as error:
        print(f"  400 as promised: {error.body}")
        return
    raise DemoFailed("a schema with a remote reference was accepted")


async def _at_once(client: openai.AsyncOpenAI, cases: list[Case]) -> None:
    began = time.perf_counter()
    batch = [cases[i % len(cases)] for i in range(16)]
    replies = await asyncio.gather(*(_ask(client, case, "auto") for case in batch))
    seconds = time.perf_counter() - began
    tokens = sum(reply["usage"]["completion_tokens"] for reply in replies)
    served = [reply["router"]["model"] for reply in replies]
    models = ", ".join(f"{served.count(m)} by {m}" for m in sorted(set(served)))
    for case, reply in zip(batch, replies, strict=True):
        check_valid(case, reply)
    print(f"  16 valid answers in {seconds:.2f} s ({tokens / seconds:.0f} tokens/s): {models}")


async def _exact(client: openai.AsyncOpenAI, cases: list[Case]) -> None:
    exact = 0
    for case in cases:
        reply = await _ask(client, case, "large")
        check_valid(case, reply)
        right = said(reply) == case.expected
        exact += right
        _show(case.text, ("right: " if right else "WRONG: ") + _answer(reply), reply)
        if not right:
            print(f"    expected {json.dumps(case.expected, ensure_ascii=False)}")
    print(f"\n  {exact} of {len(cases)} equal the expected arguments (at least {ENOUGH_EXACT} must).")
    if exact < ENOUGH_EXACT:
        raise DemoFailed(f"only {exact} of {len(cases)} calls and extractions are exact")


# ---- requests and answers ------------------------------------------------------------------------------------------


async def _ask(client: openai.AsyncOpenAI, case: Case, model: str) -> dict[str, Any]:
    reply = await client.chat.completions.create(**case.body(model))
    found: dict[str, Any] = reply.to_dict()
    return found


def said(reply: dict[str, Any]) -> Any:
    """The calls as `{name, arguments}`, or the object of an extraction, or the text."""
    message = reply["choices"][0]["message"]
    if message.get("tool_calls"):
        functions = [call["function"] for call in message["tool_calls"]]
        return [{"name": f["name"], "arguments": json.loads(f["arguments"])} for f in functions]
    try:
        return json.loads(message["content"])
    except ValueError:
        return message["content"]


def _answer(reply: dict[str, Any]) -> str:
    message = reply["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    return "; ".join(f"{c['function']['name']}({c['function']['arguments']})" for c in calls) or message["content"]


def check_valid(case: Case, reply: dict[str, Any]) -> None:
    """Raise DemoFailed unless the answer satisfies what the request demanded, by a validator of the demo's own."""
    if reply["choices"][0]["finish_reason"] == "length":
        raise DemoFailed(f"the answer to {case.text!r} was cut off at max_tokens")
    answer = said(reply)
    if case.schema is not None:
        jsonschema_rs.validator_for(case.schema).validate(answer)
    elif isinstance(answer, list):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.tools}
        for call in answer:
            if call["name"] not in offered:
                raise DemoFailed(f"{call['name']} was called but not offered")
            jsonschema_rs.validator_for(offered[call["name"]]).validate(call["arguments"])


def _show(request: str, answer: str, reply: dict[str, Any]) -> None:
    print(f"  > {request}\n    {answer}")
    _figures(reply)


def _figures(reply: dict[str, Any]) -> None:
    usage, router = reply["usage"], reply["router"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    print(
        f"    {router['model']} because {router['reason']}"
        f" | {usage['prompt_tokens']} ({cached} cached) + {usage['completion_tokens']} tokens"
        f" | TTFT {router['ttft_ms']:.0f} ms | {1e6 * router['cost_usd']:.2f} µ$",
        flush=True,
    )
