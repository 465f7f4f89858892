"""What the gateway adds to the bare engine, and what a routing decision adds to a request.

    python -m benchmarks.gateway [--requests 200] [--json OUT]

The same requests go in turn over HTTP to a server process and straight to an engine process of the same pair; the
paired difference of wall times is the gateway's overhead (HTTP, JSON, rendering, tokenising, validation, records).
Requests name the small model, so that no routing is in them; routing is measured on `auto` by the server's own clock.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import machine, percentile
from bundled_models.cases import HANDWRITTEN, Case, written
from bundled_models.evaluation import constraint_of
from engine.client import EngineClient
from engine.request import SamplingParams
from engine.tokenizer import Tokenizer
from gateway.demo import running_server
from gateway.engine_host import start_engine
from gateway.settings_loader import load_settings

SMALL = Path(__file__).parents[1] / "bundled_models" / "small"


@dataclass(frozen=True, slots=True)
class Overheads:
    """Milliseconds: gateway over engine, pair by pair; decision beyond the prefill; both over all requests."""

    gateway_ms: list[float]
    decision_ms: list[float]

    def summary(self) -> dict[str, float]:
        """p50 and p99 of each."""
        return {
            f"{name}_{label}": round(percentile(values, share), 3)
            for name, values in (("gateway_ms", self.gateway_ms), ("decision_ms", self.decision_ms))
            for label, share in (("p50", 0.5), ("p99", 0.99))
        }


async def bare(engine: EngineClient, tokenizer: Tokenizer, case: Case) -> float:
    """Seconds of one request on the engine, constraint compiled ahead as the gateway does."""
    tokens, constraint = tokenizer.encode(case.prompt), constraint_of(case)
    begun = time.perf_counter()
    if constraint is not None:
        await engine.compile("small", constraint)
    async with contextlib.aclosing(
        engine.submit("small", SamplingParams(temperature=0, max_tokens=512), tokens=tokens, constraint=constraint)
    ) as events:
        async for _ in events:
            pass
    return time.perf_counter() - begun


class Client:
    """One kept-open connection that sends and reads bytes: a client library's milliseconds are not the gateway's."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"))

    def ask(self, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds of one request over HTTP, and the reply."""
        data = json.dumps(body).encode()
        begun = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
        reply = self._connection.getresponse().read()
        spent = time.perf_counter() - begun
        found: dict[str, Any] = json.loads(reply)
        return spent, found


async def measure(url: str, cases: list[Case], requests: int) -> Overheads:
    """Alternate the two ways; every case is warmed up once on both, so that neither pays for caches."""
    tokenizer, overhead, decisions = Tokenizer.from_folder(SMALL), list[float](), list[float]()
    engine = await start_engine(load_settings({}))
    try:
        client = Client(url)
        for index in range(-len(cases), requests):
            case = cases[index % len(cases)]
            alone = await bare(engine, tokenizer, case)
            whole, _ = client.ask(case.body("small"))
            _, routed = client.ask(case.body("auto"))
            if index >= 0:
                overhead.append(1000 * (whole - alone))
                decisions.append(routed["router"]["overhead_ms"])
    finally:
        await engine.close()
    return Overheads(overhead, decisions)


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    cases = [case for case in written(HANDWRITTEN) if case.kind in ("call", "extract")][::8]
    with running_server([]) as url:
        found = asyncio.run(measure(url, cases, given.requests)).summary()
    for name, value in found.items():
        print(f"{name:20} {value:8.2f}")
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "requests": given.requests, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
