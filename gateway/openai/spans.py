"""The spans of an exchange, emitted when it is over: compile, route, and the generation with what the engine timed."""

from collections.abc import Sequence

from engine.request import RequestTimeline
from gateway.openai.run import Run
from gateway.storage.records import RequestRecord
from gateway.telemetry import semconv
from gateway.telemetry.request_trace import Attributes, RequestTrace


def emit_spans(trace: RequestTrace, run: Run, record: RequestRecord, timelines: Sequence[RequestTimeline]) -> None:
    """Add what the run got to beneath the request's span."""
    if run.compiled_s is not None:
        error = None if run.compiled is not None else record.error_code or "failed"
        trace.child(semconv.SPAN_COMPILE, *run.compiled_s, _compiling(run, record), error=error)
    if run.outcome is not None and run.routed_s is not None:
        trace.child(semconv.SPAN_ROUTE, *run.routed_s, _routing(run))
    if run.generated_s is not None:
        trace.generation(record, *run.generated_s, timelines)


def _compiling(run: Run, record: RequestRecord) -> Attributes:
    return {
        semconv.CONSTRAINT_KIND: record.constraint_kind,
        semconv.CONSTRAINT_BACKEND: None if run.compiled is None else run.compiled.backend,
        semconv.CONSTRAINT_CACHED: None if run.compiled is None else run.compiled.cached,
    }


def _routing(run: Run) -> Attributes:
    if run.outcome is None:
        return {}
    decision = run.outcome.decision
    return {
        semconv.ROUTE_CHOICE: decision.model,
        semconv.ROUTE_REASON: decision.reason,
        semconv.ROUTE_POLICY: decision.policy,
        semconv.ROUTE_SCORE: decision.score,
        semconv.ROUTE_THRESHOLD: decision.threshold,
        semconv.ROUTE_PROPENSITY: decision.propensity,
    }
