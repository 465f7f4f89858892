"""The spans of an exchange, emitted when it is over: compile, route, and the generation with what the engine timed."""

from collections.abc import Sequence

import msgspec

from engine.request import RequestTimeline
from gateway.openai.run import Attempt, Compiling, Run
from gateway.storage.records import RequestRecord
from gateway.telemetry import semconv
from gateway.telemetry.request_trace import Attributes, RequestTrace


def emit_spans(trace: RequestTrace, run: Run, record: RequestRecord, timelines: Sequence[RequestTimeline]) -> None:
    """Add what the run got to beneath the request's span."""
    for one in run.compilings:
        error = None if one.compiled is not None else record.error_code or "failed"
        trace.child(semconv.SPAN_COMPILE, one.began_s, one.ended_s, _compiling(one, record), error=error)
    if run.outcome is not None and run.routed_s is not None:
        trace.child(semconv.SPAN_ROUTE, *run.routed_s, _routing(run))
    for attempt in run.attempts:
        if attempt.outcome is run.outcome:
            trace.generation(record, *attempt.generated_s, timelines)
        else:
            _emit_discarded(trace, attempt, record)


def _emit_discarded(trace: RequestTrace, attempt: Attempt, record: RequestRecord) -> None:
    """The span of an answer that was not sent: the same name, its own model and tokens; its cost is in the other's."""
    outcome = attempt.outcome
    own = msgspec.structs.replace(
        record,
        model_served=outcome.model,
        backend=outcome.backend,
        finish_reason=outcome.finish_reason,
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        completion_tokens=outcome.completion_tokens,
        error_code=None,
    )
    timelines = [event.timeline for event in outcome.finished.values()]
    trace.generation(own, *attempt.generated_s, timelines, is_discarded=True)


def _compiling(one: Compiling, record: RequestRecord) -> Attributes:
    return {
        semconv.GEN_AI_REQUEST_MODEL: one.alias,
        semconv.CONSTRAINT_KIND: record.constraint_kind,
        semconv.CONSTRAINT_BACKEND: None if one.compiled is None else one.compiled.backend,
        semconv.CONSTRAINT_CACHED: None if one.compiled is None else one.compiled.cached,
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
        semconv.ROUTE_RANK: decision.rank,
        semconv.ROUTE_THRESHOLD: decision.threshold,
        semconv.ROUTE_PROPENSITY: decision.propensity,
        semconv.ROUTE_ESCALATED: run.outcome.escalate_reason,
    }
