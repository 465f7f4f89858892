"""What a routing decision costs in time, beside the model's work: features and decisions, one request at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from router_model.artefact import RouterArtefact
from router_model.circumstances import Circumstances
from router_model.facts import RequestFacts
from router_model.features import Features, Kind, extract, extract_cheap
from router_model.options import RouteOptions
from router_model.outcomes import Outcome
from router_model.policy import Policy
from router_model.prefill import PrefillState

STATE_SHAPE = (3, 2, 256)
"""Of synthetic prefill states: three layers of a small model of width 256."""

FACTS = RequestFacts(prompt_tokens=300, n_tools=4, n_parameters=12, schema_depth=3, schema_properties=12)


class Times(msgspec.Struct, frozen=True):
    """Microseconds of a call: CPU time of the thread, and wall time, which other processes lengthen."""

    cpu_p50_us: float
    cpu_p99_us: float
    wall_p50_us: float
    wall_p99_us: float


class Latency(msgspec.Struct, frozen=True):
    """Of one request on one thread: features from text (and state), the decision from features, and both together.

    front: bounds from the front model, features included; None where the router has none.
    """

    kind: Kind
    extract: Times
    decide: Times
    both: Times
    front: Times | None


def measure_latency(artefact: RouterArtefact, requests: Sequence[Outcome], n: int = 2_000) -> Latency:
    """Time `n` decisions on the requests' texts and states."""
    policy, options, rng = Policy(artefact=artefact), RouteOptions(), np.random.default_rng(0)
    chosen = [requests[i % len(requests)] for i in range(n)]
    features: list[Features] = []

    def read(i: int) -> Features:
        return extract(chosen[i].text, FACTS, chosen[i].state)

    def bounds(i: int) -> object:
        return front.bounds(extract_cheap(chosen[i].text, FACTS)) if front is not None else None

    front = artefact.front
    read(0)  # reads the word vectors
    extracting = _timed(lambda i: features.append(read(i)), n)
    return Latency(
        policy.kind,
        extracting,
        _timed(lambda i: policy.decide(features[i], options, Circumstances(), rng), n),
        _timed(lambda i: policy.decide(read(i), options, Circumstances(), rng), n),
        None if front is None else _timed(bounds, n),
    )


def with_synthetic_states(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with prefill states of STATE_SHAPE drawn at random: right in size, empty in meaning."""
    rng = np.random.default_rng(0)
    return [
        replace(
            outcome,
            state=PrefillState(rng.standard_normal(STATE_SHAPE, np.float32), float(rng.random()), float(rng.random())),
        )
        for outcome in outcomes
    ]


def _timed(call: Callable[[int], object], n: int) -> Times:
    times = np.empty((n, 2))
    for i in range(n):
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        call(i)
        times[i] = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    (cpu_p50, wall_p50), (cpu_p99, wall_p99) = np.percentile(times / 1e3, (50, 99), axis=0)
    return Times(float(cpu_p50), float(cpu_p99), float(wall_p50), float(wall_p99))
