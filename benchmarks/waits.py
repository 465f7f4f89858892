"""What it does that the engine's OpenMP threads wait briefly, beside libgomp's own waits of milliseconds.

    python -m benchmarks.waits [--rounds 5] [--requests 600] [--json OUT]

    T, M       tokens per second of one process that does nothing else, of random weights of two shapes (16 M and 112 M
               parameters): decode at 1 and 8 streams, a prompt
    server     first token of requests to the small model by name, and the router's decisions, over HTTP

Both kinds of wait take turns, a process each, and ratios are of neighbours.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from benchmarks.checkpoints import SHAPES, build_checkpoint
from benchmarks.routing.overhead import overhead
from benchmarks.routing.prompts import short_chats
from benchmarks.routing.streams import StreamClient
from benchmarks.timing import Spread, machine, percentile

LIBGOMP = "300000"
"""Rounds that libgomp spins where nothing else is said and there are no more threads than cores."""

WAYS = ("brief", "libgomp")
SHAPES_MEASURED = ("T", "M")
TOKENS, PROMPT = 120, 512


def main() -> int:
    """Print and save both tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.waits", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600, help="decisions of a server in each round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)  # one process of the first table
    given = parser.parse_args()
    if given.engine is not None:
        print(json.dumps(_speeds(given.engine)))
        return 0
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = [build_checkpoint(SHAPES[name], Path(folder) / name, corpus_files=50) for name in SHAPES_MEASURED]
        for number in range(given.rounds):
            for way in WAYS if number % 2 else WAYS[::-1]:
                measured = _server(way, given.requests)
                for checkpoint in checkpoints:
                    measured |= {
                        f"{checkpoint.name}: {name}": value for name, value in _engine(checkpoint, way).items()
                    }
                for name, value in measured.items():
                    found[way][name].append(value)
    rows = {
        name: {
            **{way: asdict(Spread.of(found[way][name])) for way in WAYS},
            "ratio": asdict(Spread.of([a / b for a, b in zip(*(found[way][name] for way in WAYS), strict=True)])),
        }
        for name in found[WAYS[0]]
    }
    print(f"{'':38}{'brief waits':>24}{'libgomp':>24}{'ratio':>24}")
    for name, row in rows.items():
        print(f"{name:38}" + "".join(f"{Spread(**row[column])!s:>24}" for column in (*WAYS, "ratio")))
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    return 0


def _environment(way: str) -> dict[str, str]:
    chosen = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return chosen | ({"GOMP_SPINCOUNT": LIBGOMP} if way == "libgomp" else {})


def _engine(checkpoint: Path, way: str) -> dict[str, float]:
    """Of a process that does not serve, so the engine's own choice is made for it here."""
    from engine.child import SPINS

    environment = {"GOMP_SPINCOUNT": SPINS} | _environment(way)
    command = [sys.executable, "-m", "benchmarks.waits", "--engine", str(checkpoint)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    speeds: dict[str, float] = json.loads(output.splitlines()[-1])
    return speeds


def _speeds(checkpoint: Path) -> dict[str, float]:
    """Tokens per second, medians of three."""
    from engine import Engine, SamplingParams
    from engine.config import EngineConfig
    from engine.pair import load_engine
    from engine.pair_config import InstanceOptions, PairConfig

    options = InstanceOptions(prefix_cache=False, calibrate_s=0.0)
    engine = Engine(load_engine(PairConfig({"model": EngineConfig(checkpoint)}, options=options)))
    speeds = {}
    for name, batch, prompt, tokens in (
        ("decode, 1 stream, tokens/s", 1, 16, TOKENS),
        ("decode, 8 streams, tokens/s", 8, 16, TOKENS),
        ("prompt of 512, tokens/s", 1, PROMPT, 1),
    ):
        params = SamplingParams(temperature=0.0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True)
        prompts = [[300 + (row * 131 + at * 17) % 1500 for at in range(prompt)] for row in range(batch)]
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            engine.generate(prompts, params)
            seconds.append(time.perf_counter() - began)
        speeds[name] = batch * (tokens if tokens > 1 else prompt) / Spread.of(seconds[1:]).median
    return speeds


def _server(way: str, n: int) -> dict[str, float]:
    """Milliseconds, of the bundled pair."""
    from gateway.demo import running_server

    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(_environment(way))
    try:
        with running_server([]) as url:
            client = StreamClient(url)
            chats = itertools.islice(short_chats(5), 120)
            first = [1000 * client.stream(body, "small").first_s for body in chats][20:]
            decided = overhead(url, n)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return {
        "first token p50, ms": percentile(first, 0.5),
        "first token p95, ms": percentile(first, 0.95),
        "decision p50, ms": decided.p50_ms,
        "decision p99, ms": decided.p99_ms,
    }


if __name__ == "__main__":
    raise SystemExit(main())
