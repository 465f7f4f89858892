"""How evenly tokens come while others send constraints that were made to take all time or memory.

    python -m benchmarks.bombs [--seconds 10] [--runs 3] [--streams 4] [--json OUT]

A server on the bundled pair streams answers over HTTP, in turn without and with a storm: two clients in a process of
their own send the bombs of `bomb_corpus.py` one after the other, each with a remark that makes it new to every cache.
The ratio is the p99 of the gaps between tokens with the storm over the p99 without it, run by run. `answers`: how long
the bombs took, and how they ended, by HTTP status.
"""

import argparse
import contextlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bomb_corpus import bombs, request_fields
from benchmarks.timing import Spread, machine, percentile
from gateway.demo import running_server
from grammars.constraint import Constraint, Grammar, JsonSchema, Regex

TOKENS = 200
CLIENTS = 2
PROMPT = "Name every station between Stockholm and Narvik, one after the other."


@dataclass(frozen=True, slots=True)
class Answer:
    """One bomb: the HTTP status (0: none within a minute), and seconds until all of the answer was there."""

    name: str
    status: int
    seconds: float


class Streams:
    """Streams ordinary answers on threads, and notes the gaps between their tokens."""

    def __init__(self, url: str, n: int) -> None:
        self._url, self._n = url, n

    def gaps(self, seconds: float) -> list[float]:
        """Seconds between the chunks of each answer, over about so many seconds."""
        found: list[float] = []
        until = time.perf_counter() + seconds
        threads = [threading.Thread(target=self._stream, args=(until, found)) for _ in range(self._n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def _stream(self, until: float, found: list[float]) -> None:
        body = {
            "model": "large",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": TOKENS,
            "min_tokens": TOKENS,
            "stream": True,
        }
        while time.perf_counter() < until:
            with contextlib.closing(_connection(self._url)) as connection:
                connection.request("POST", "/v1/chat/completions", json.dumps(body), _HEADERS)
                reply = connection.getresponse()
                if reply.status != 200:
                    raise RuntimeError(f"an ordinary request was answered {reply.status}: {reply.read()[:300]!r}")
                last = None
                while line := reply.readline():
                    if line.startswith(b"data: {"):
                        now = time.perf_counter()
                        if last is not None:
                            found.append(now - last)
                        last = now


_HEADERS = {"content-type": "application/json"}


def _connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)


def throw(url: str, seed: int) -> None:
    """Send bombs until standard input ends; one JSON line for each answer."""
    draw = random.Random(seed)
    named = list(bombs().items())
    is_over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(is_over,), daemon=True).start()
    while not is_over.is_set():
        name, bomb = draw.choice(named)
        fields = request_fields(_new(bomb, str(draw.getrandbits(40))))
        body = json.dumps({"model": "large", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8} | fields)
        with contextlib.closing(_connection(url)) as connection:
            began, status = time.perf_counter(), 0
            with contextlib.suppress(TimeoutError):
                connection.request("POST", "/v1/chat/completions", body, _HEADERS)
                reply = connection.getresponse()
                reply.read()
                status = reply.status
        print(msgspec.json.encode(Answer(name, status, time.perf_counter() - began)).decode(), flush=True)


def _wait_for_the_end(is_over: threading.Event) -> None:
    sys.stdin.read()
    is_over.set()


def _new(bomb: Constraint, remark: str) -> Constraint:
    """The same bomb, as no cache has seen it."""
    match bomb:
        case JsonSchema() if isinstance(bomb.schema, dict) and "properties" not in bomb.schema:
            return JsonSchema({**bomb.schema, "description": remark})
        case Grammar():
            return Grammar(f"{bomb.text}\n{'//' if bomb.syntax == 'lark' else '#'} {remark}\n", bomb.syntax)
        case Regex():
            return Regex(f"{bomb.pattern}(?:{remark})?")
    return bomb


@contextlib.contextmanager
def storm(url: str, found: list[Answer]) -> Iterator[None]:
    """Bombs from a process of their own while the block lasts; their answers are in `found` after it."""
    throwers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bombs", "--throw", url, "--seed", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for seed in range(CLIENTS)
    ]
    try:
        yield
    finally:
        for thrower in throwers:
            said, _ = thrower.communicate(b"")
            found += [msgspec.json.decode(line, type=Answer) for line in said.splitlines()]


def measure(url: str, runs: int, seconds: float, n_streams: int) -> dict[str, Any]:
    """Alternate the two, after one of each to warm up."""
    streams = Streams(url, n_streams)
    streams.gaps(1.0)
    with storm(url, []):
        streams.gaps(min(5.0, seconds))
    quiet, stormy, answers = list[float](), list[float](), list[Answer]()
    for _ in range(runs):
        quiet.append(1000 * percentile(streams.gaps(seconds), 0.99))
        with storm(url, answers):
            stormy.append(1000 * percentile(streams.gaps(seconds), 0.99))
    ratios = [with_it / without for with_it, without in zip(stormy, quiet, strict=True)]
    return {
        "p99 without, ms": asdict(Spread.of(quiet)),
        "p99 with, ms": asdict(Spread.of(stormy)),
        "with / without": asdict(Spread.of(ratios)),
        "answers": {
            "n": len(answers),
            "by status": dict(Counter(answer.status for answer in answers)),
            "p50, s": round(percentile([answer.seconds for answer in answers], 0.5), 3),
            "longest, s": round(max(answer.seconds for answer in answers), 3),
            "slowest": max(answers, key=lambda answer: answer.seconds).name,
        },
    }


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bombs", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--throw", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.throw:
        throw(given.throw, given.seed)
        return
    with running_server([]) as url:
        found = measure(url, given.runs, given.seconds, given.streams)
    for name, figures in found.items():
        print(f"{name:18}", figures if name == "answers" else Spread(**figures))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "streams": given.streams, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
