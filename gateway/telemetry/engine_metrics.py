"""The engine's own counters as Prometheus metrics, read when they are scraped."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.speculation.proposer import Source
from gateway.telemetry.semconv import (
    METRIC_ACCEPTED_BY,
    METRIC_DRAFTED_BY,
    METRIC_ENGINE_PREFIX,
    METRIC_WASTED_BY,
    VLLM_NAMES,
)

EngineStats = Mapping[str, Mapping[str, Any]]


class EngineCollector(Collector):
    """The newest engine stats by model: names ending in `_now` are gauges, all others counters since its start.

    The share of KV blocks in use is added: dashboards and load balancers ask for it, the engine only counts blocks.
    Drafts have who proposed them as a second label.
    """

    def __init__(self) -> None:
        self._stats: EngineStats = {}

    def update(self, stats: EngineStats) -> None:
        """Replace the snapshot; what is not a number is left out."""
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """One family per number, labelled by model."""
        families: dict[str, Metric] = {}
        for model, numbers in self._stats.items():
            for name, value in _with_usage(numbers).items():
                if name not in _BY_SOURCE and isinstance(value, int | float) and not isinstance(value, bool):
                    family = families.setdefault(name, _family(name))
                    family.add_metric([model], float(value))  # type: ignore[attr-defined]
        return [*families.values(), *_drafts(self._stats)]


_BY_SOURCE = frozenset(f"tokens_{verb}_{source}" for verb in ("drafted", "accepted") for source in Source)


def _drafts(stats: EngineStats) -> list[Metric]:
    """What each source drafted for each model: verified, taken, and verified in vain; none for sources that are
    unknown to the engine's stats.
    """
    labels = ["model", "proposer"]
    drafted = CounterMetricFamily(METRIC_DRAFTED_BY, "Drafted tokens that were verified.", labels=labels)
    accepted = CounterMetricFamily(METRIC_ACCEPTED_BY, "Drafted tokens that the model took.", labels=labels)
    wasted = CounterMetricFamily(METRIC_WASTED_BY, "Drafted tokens that were verified in vain.", labels=labels)
    for model, numbers in stats.items():
        for source in Source:
            n = numbers.get(f"tokens_drafted_{source}")
            if n is not None:
                taken = numbers.get(f"tokens_accepted_{source}", 0)
                drafted.add_metric([model, source], n)
                accepted.add_metric([model, source], taken)
                wasted.add_metric([model, source], n - taken)
    return [drafted, accepted, wasted]


def _with_usage(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers with `kv_usage_now`, 0 to 1, in place of the constant number of blocks, which is no counter."""
    extended = dict(numbers)
    blocks = extended.pop("kv_blocks_total", None)
    if blocks:
        extended["kv_blocks_now"] = blocks
        extended["kv_usage_now"] = extended.get("kv_blocks_used_now", 0) / blocks
    return extended


def _family(name: str) -> Metric:
    plain = name.removesuffix("_now")
    plain = plain.removesuffix("_s") + "_seconds" if plain.endswith("_s") else plain
    exported = VLLM_NAMES.get(name, METRIC_ENGINE_PREFIX + plain)
    description = f"Engine: {name.replace('_', ' ')}."
    if name.endswith("_now"):
        return GaugeMetricFamily(exported, description, labels=["model"])
    return CounterMetricFamily(exported, description, labels=["model"])
