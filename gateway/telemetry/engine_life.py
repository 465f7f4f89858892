"""How the engine's process is, and what the gateway still expects of it, as Prometheus metrics."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.client import EngineClient
from gateway.drain import Drain
from gateway.telemetry import semconv


class EngineLifeCollector(Collector):
    """Read at every scrape. A label is the cause of a death, which comes from a small set, never its message."""

    def __init__(self, engine: EngineClient, drain: Drain) -> None:
        self._engine, self._drain = engine, drain

    def collect(self) -> Iterable[Metric]:
        """One family for each number."""
        engine, health = self._engine, self._engine.health
        yield _gauge(semconv.METRIC_IN_FLIGHT, "HTTP requests being answered.", self._drain.running)
        yield _gauge(semconv.METRIC_ENGINE_UP, "1 while the engine takes requests.", health.state == "up")
        yield CounterMetricFamily(semconv.METRIC_ENGINE_RESTARTS, "Restarts of the engine.", value=health.restarts)
        yield _gauge(semconv.METRIC_ENGINE_CALLS, "Commands that wait for the engine.", engine.n_calls)
        yield _gauge(semconv.METRIC_ENGINE_HANDLES, "Prefills held for the router.", engine.n_held)
        if health.silent_s is not None:
            yield _gauge(semconv.METRIC_ENGINE_HEARTBEAT_AGE, "Since the last sign of life.", health.silent_s)
        if health.last_death is not None and health.last_death_s is not None:
            death = GaugeMetricFamily(semconv.METRIC_ENGINE_LAST_DEATH, "When the engine died last.", labels=["cause"])
            death.add_metric([health.last_death.cause], health.last_death_s)
            yield death


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
