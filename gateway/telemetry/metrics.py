"""Prometheus metrics of one gateway, in a registry of its own."""

import itertools
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from engine.request import RequestTimeline
from gateway.storage.records import DecisionRecord, RequestRecord
from gateway.storage.write_behind import WriteBehindStats
from gateway.telemetry import semconv
from gateway.telemetry.engine_metrics import EngineCollector, EngineStats

# OpenTelemetry's GenAI buckets begin at 1 ms (first token) and 10 ms (between tokens): too coarse for a small model.
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SECONDS = (*_SHORT, 30.0, 120.0)
_BETWEEN_TOKENS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_OVERHEAD = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5)
_PREDICTION = (0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)
_NO_MODEL = "none"

# The share that a gauge shows is a moving mean over about this many decisions.
_SHARE_WINDOW = 500


class Metrics:
    """Fed with the same records that are stored, so that metrics and database cannot disagree.

    Labels come from bounded sets only: served models, statuses, decision reasons; never from what a client wrote.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._engine = EngineCollector()
        self.registry.register(self._engine)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self._requests = counter(semconv.METRIC_REQUESTS, "Requests by HTTP status.", "model", "status")
        self._prompt_tokens = counter(semconv.METRIC_PROMPT_TOKENS, "Prompt tokens.", "model")
        self._cached_tokens = counter(semconv.METRIC_CACHED_TOKENS, "Prompt tokens found in the cache.", "model")
        self._generated = counter(semconv.METRIC_GENERATION_TOKENS, "Generated tokens.", "model")
        self._cost = counter(semconv.METRIC_COST, "Cost in USD, by kind of work.", "model", "kind")
        self._cost_if_large = counter(
            semconv.METRIC_COST_IF_LARGE, "Estimated cost in USD had the large model answered.", "model"
        )
        self._invalid = counter(semconv.METRIC_INVALID, "Answers that did not satisfy their constraint.", "model")
        self._decisions = counter(semconv.METRIC_DECISIONS, "Routing decisions.", "choice", "reason")
        self._escalations = counter(semconv.METRIC_ESCALATIONS, "Requests that went on to the large model.", "reason")
        self._not_escalated = counter(
            semconv.METRIC_NOT_ESCALATED, "Small answers that would not do and were sent all the same.", "reason"
        )
        self._uncalibrated = counter(
            semconv.METRIC_UNCALIBRATED, "Routed requests that no promise about quality covered.", "target"
        )
        self._large_share = Gauge(
            semconv.METRIC_LARGE_SHARE,
            f"Share of the large model among the last {_SHARE_WINDOW} decisions or so.",
            ("target",),
            registry=self.registry,
        )
        self._decided: dict[str, tuple[int, float]] = {}
        self._ttft_ratio = histogram(
            semconv.METRIC_TTFT_PREDICTION, "Real over predicted time to first token.", _PREDICTION, "model"
        )
        self._overhead = histogram(semconv.METRIC_ROUTER_OVERHEAD, "Deciding, beyond the prefill.", _OVERHEAD)
        self._ttft = histogram(semconv.METRIC_TTFT, "Arrival to first token.", _SECONDS, "model")
        self._itl = histogram(semconv.METRIC_ITL, "Between tokens.", _BETWEEN_TOKENS, "model")
        self._e2e = histogram(semconv.METRIC_E2E, "Arrival to end.", _SECONDS, "model")
        self._queue = histogram(semconv.METRIC_QUEUE, "Arrival to admission.", _SECONDS, "model")
        self._compile = histogram(semconv.METRIC_COMPILE, "Compiling a constraint.", _SECONDS)

    def observe_request(self, record: RequestRecord, timelines: Sequence[RequestTimeline] = ()) -> None:
        """Count a finished request; timelines: those of its choices, for the times between tokens."""
        model = record.model_served or _NO_MODEL
        self._requests.labels(model, str(record.status)).inc()
        if record.compile_s is not None:
            self._compile.observe(record.compile_s)
        if record.model_served is None:
            return
        self._prompt_tokens.labels(model).inc(record.prompt_tokens)
        self._cached_tokens.labels(model).inc(record.cached_tokens)
        self._generated.labels(model).inc(record.completion_tokens)
        extra = record.cost_route_usd + record.cost_discarded_usd + record.cost_draft_usd
        for kind, usd in (
            ("answer", max(0.0, record.cost_usd - extra)),
            ("route", record.cost_route_usd),
            ("discarded", record.cost_discarded_usd),
            ("draft", record.cost_draft_usd),
        ):
            self._cost.labels(model, kind).inc(usd)
        self._cost_if_large.labels(model).inc(record.cost_if_large_usd)
        if record.valid is False:
            self._invalid.labels(model).inc()
        self._e2e.labels(model).observe(record.duration_s)
        if record.timing.ttft_s is not None:
            self._ttft.labels(model).observe(record.timing.ttft_s)
        if record.timing.queue_s is not None:
            self._queue.labels(model).observe(record.timing.queue_s)
        between_tokens = self._itl.labels(model)
        for timeline in timelines:
            times = timeline.token_times_s
            for earlier, later in itertools.pairwise(times):
                between_tokens.observe(later - earlier)

    def observe_decision(self, record: DecisionRecord) -> None:
        """Count a routing decision."""
        self._decisions.labels(record.action, record.reason).inc()
        if record.overhead_s is not None:
            self._overhead.observe(record.overhead_s)
        if record.escalated:
            self._escalations.labels(record.escalate_reason or "unknown").inc()
        elif record.escalate_reason is not None:
            self._not_escalated.labels(record.escalate_reason).inc()
        if record.target is not None:
            self._observe_target(record.target, record)
        predicted_s = record.expected_ttft_s.get(record.action)
        if predicted_s and record.ttft_s is not None and record.model_served == record.action:
            self._ttft_ratio.labels(record.action).observe(record.ttft_s / predicted_s)

    def _observe_target(self, target: str, record: DecisionRecord) -> None:
        """The target's counters, and its realised share: the plain mean at first, then one that forgets."""
        if not record.calibrated:
            self._uncalibrated.labels(target).inc()
        n, share = self._decided.get(target, (0, 0.0))
        n = min(n + 1, _SHARE_WINDOW)
        share += (float(record.action == "large") - share) / n
        self._decided[target] = n, share
        self._large_share.labels(target).set(share)

    def update_engine(self, stats: EngineStats) -> None:
        """Take over the newest `Stats.models` of the engine."""
        self._engine.update(stats)

    def watch_writes(self, read: Callable[[], tuple[WriteBehindStats, int]]) -> None:
        """Expose the write-behind counters and the spool's bytes, read at every scrape."""
        self.registry.register(_WritesCollector(read))

    def watch(self, collector: Collector) -> None:
        """Expose what another part counts, read at every scrape."""
        self.registry.register(collector)

    def render(self) -> bytes:
        """The exposition text, for `content_type`."""
        return generate_latest(self.registry)


class _WritesCollector(Collector):
    def __init__(self, read: Callable[[], tuple[WriteBehindStats, int]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        stats, spool_bytes = self._read()
        yield CounterMetricFamily(semconv.METRIC_ROWS_WRITTEN, "Rows inserted.", value=stats.inserted)
        yield CounterMetricFamily(semconv.METRIC_ROWS_LOST, "Rows lost: disk and memory full.", value=stats.lost)
        yield CounterMetricFamily(semconv.METRIC_ROWS_REFUSED, "Rows set aside as impossible.", value=stats.refused)
        yield CounterMetricFamily(semconv.METRIC_WRITE_FAILURES, "Failed attempts to insert.", value=stats.failures)
        yield GaugeMetricFamily(semconv.METRIC_SPOOL_BYTES, "Bytes of rows waiting on disk.", value=spool_bytes)
