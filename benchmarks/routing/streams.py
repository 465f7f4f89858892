"""Streamed requests over one kept-open connection, timed at the client to the first byte that tells of a token."""

import http.client
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Streamed:
    """first_s: until the first frame, which a stream sends with its first token. model, reason: of the response's
    headers."""

    first_s: float
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Paired:
    """Of pairs that alternated: median seconds of both kinds, and the ratio of the medians with its 95 % interval by a
    bootstrap over pairs. n: pairs; dropped: those that were decided otherwise than they were to be."""

    name: str
    explicit_s: float
    routed_s: float
    ratio: float
    low: float
    high: float
    n: int
    dropped: int

    @classmethod
    def of(cls, name: str, explicit: Sequence[float], routed: Sequence[float], dropped: int) -> "Paired":
        """From at least one pair."""
        both = np.array([explicit, routed])
        picks = np.random.default_rng(0).integers(0, len(explicit), (2000, len(explicit)))
        drawn = np.median(both[:, picks], axis=2)
        low, high = np.quantile(drawn[1] / drawn[0], [0.025, 0.975])
        first, second = statistics.median(explicit), statistics.median(routed)
        return cls(name, first, second, second / first, float(low), float(high), len(explicit), dropped)

    def __str__(self) -> str:
        return (
            f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]   "
            f"{1000 * self.explicit_s:7.2f} ms against {1000 * self.routed_s:7.2f} ms, {self.n} pairs"
        )


class StreamClient:
    """Sends and reads bytes: a client library's milliseconds are not the gateway's."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
        self._salts = itertools.count()

    def stream(self, body: Mapping[str, Any], model: str, headers: Mapping[str, str] | None = None) -> Streamed:
        """A streamed answer, read to its end. Its prompt is found in no cache.

        RuntimeError: the server refused it.
        """
        salt = f"{id(self)}-{next(self._salts)}"
        data = json.dumps({**body, "model": model, "stream": True, "cache_salt": salt}).encode()
        begun = time.perf_counter()
        self._connection.request(
            "POST", "/v1/chat/completions", data, {"content-type": "application/json", **(headers or {})}
        )
        response = self._connection.getresponse()
        first = response.readline()
        spent = time.perf_counter() - begun
        rest = response.read()
        if response.status != 200 or b"error" in rest[-300:]:
            raise RuntimeError(f"{response.status}: {(first + rest)[:500].decode()}")
        return Streamed(spent, response.getheader("x-router-model") or "", response.getheader("x-router-reason") or "")

    def ask(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A whole answer as the server gives it."""
        self._connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", **(headers or {})},
        )
        found: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return found


def interleaved(
    client: StreamClient,
    name: str,
    bodies: Iterator[Mapping[str, Any]],
    *,
    model: str,
    headers: Mapping[str, str],
    pairs: int,
    warm_up: int = 5,
) -> Paired:
    """Each body once by the model's name and once by `auto` with these headers, which is to end there, in random
    order."""
    explicit, routed, dropped, order = list[float](), list[float](), 0, random.Random(0)
    for index, body in enumerate(itertools.islice(bodies, warm_up + pairs)):
        found = dict[str, Streamed]()
        for kind in order.sample(["explicit", "auto"], 2):
            found[kind] = client.stream(body, *((model,) if kind == "explicit" else ("auto", headers)))
        if index < warm_up:
            continue
        if not _is_alias(found["auto"], found["explicit"]):
            dropped += 1
            continue
        explicit.append(found["explicit"].first_s)
        routed.append(found["auto"].first_s)
    if not explicit:
        raise RuntimeError(f"{name}: no request was decided as it was to be")
    return Paired.of(name, explicit, routed, dropped)


def _is_alias(auto: Streamed, explicit: Streamed) -> bool:
    return auto.model == explicit.model
