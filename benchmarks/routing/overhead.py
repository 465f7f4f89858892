"""What decisions take, by the server's own clock: beyond the prefill that they read."""

import itertools
from dataclasses import dataclass

from benchmarks.routing.prompts import short_chats, tool_requests
from benchmarks.routing.streams import StreamClient
from benchmarks.timing import percentile


@dataclass(frozen=True, slots=True)
class Overhead:
    """Milliseconds over n decisions. early: the part of them that was settled before any prefill."""

    n: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    early: float


def overhead(url: str, n: int) -> Overhead:
    """Of n requests to `auto`, one after the other, half with tools; no two are alike."""
    client, found, early = StreamClient(url), list[float](), 0
    seeds = itertools.count(1000)
    bodies = itertools.chain.from_iterable(
        itertools.chain.from_iterable(zip(short_chats(seed), tool_requests(-seed), strict=False)) for seed in seeds
    )
    for body in itertools.islice(bodies, n):
        router = client.ask({**body, "model": "auto", "max_tokens": 1}, {"x-router-cascade": "off"})["router"]
        found.append(router["overhead_ms"])
        early += router["reason"] == "clear_case"
    p50, p90, p99 = (percentile(found, share) for share in (0.5, 0.9, 0.99))
    return Overhead(n, p50, p90, p99, early / n)
