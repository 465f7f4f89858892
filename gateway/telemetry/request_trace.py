"""One request's trace: an HTTP span, and beneath it finished spans for what happened, made from timestamps afterwards.

    POST /v1/chat/completions        SERVER, continues the client's traceparent
    ├─ grammar.compile              one for each model that it was compiled for
    ├─ route.decide
    └─ chat auto                     gen_ai.*; two where the large model answered again
       ├─ engine.queue               one of each per choice
       ├─ engine.prefill
       └─ engine.decode

Nothing is measured by opening and closing spans around the work: no span is ever left open, and none is made per token.
"""

import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from engine.request import RequestTimeline
from gateway.storage.records import RequestRecord
from gateway.telemetry import semconv

Attributes = Mapping[str, AttributeValue | None]


class RequestTrace:
    """The spans of one HTTP request. All times are seconds of `time.monotonic()`, as in a RequestTimeline.

    The engine's process shares that clock on Linux; it is mapped to wall time once, when the request arrives.
    """

    def __init__(
        self, tracer: Tracer, method: str, route: str, headers: Mapping[str, str], arrived_s: float | None = None
    ) -> None:
        """headers: the request's, names in lower case; an unreadable traceparent starts a trace of its own."""
        self._tracer = tracer
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._span = tracer.start_span(
            f"{method} {route}",
            context=TraceContextTextMapPropagator().extract(headers, context=Context()),
            kind=SpanKind.SERVER,
            attributes={semconv.HTTP_METHOD: method, semconv.HTTP_ROUTE: route},
            start_time=None if arrived_s is None else self._ns(arrived_s),
        )
        self._context = set_span_in_context(self._span, Context())
        self._ended = False

    @property
    def trace_id(self) -> str | None:
        """32 hex digits; None when tracing is disabled altogether (OTEL_SDK_DISABLED)."""
        found = self._span.get_span_context()
        return format_trace_id(found.trace_id) if found.is_valid else None

    @property
    def traceparent(self) -> str | None:
        """The W3C header for the response and for calls further on."""
        found = self._span.get_span_context()
        if not found.is_valid:
            return None
        return f"00-{format_trace_id(found.trace_id)}-{format_span_id(found.span_id)}-{int(found.trace_flags):02x}"

    def child(
        self,
        name: str,
        start_s: float,
        end_s: float,
        attributes: Attributes | None = None,
        *,
        error: str | None = None,
        context: Context | None = None,
    ) -> Context:
        """Emit a finished span beneath the request's (or beneath `context`), and return the context for its children.

        Attributes that are None are left out. error: a stable name of what went wrong.
        """
        known = {key: value for key, value in (attributes or {}).items() if value is not None}
        span = self._tracer.start_span(
            name, context=context or self._context, attributes=known, start_time=self._ns(start_s)
        )
        if error is not None:
            span.set_attribute(semconv.ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=self._ns(max(start_s, end_s)))
        return set_span_in_context(span, Context())

    def generation(
        self,
        record: RequestRecord,
        start_s: float,
        end_s: float,
        timelines: Sequence[RequestTimeline],
        *,
        is_discarded: bool = False,
    ) -> None:
        """Emit the model's span and, for the timeline of each choice, its time in queue, prefill and decode.

        is_discarded: another model answered again; the request's cost is on that one's span.
        """
        context = self.child(
            f"chat {record.model_requested}",
            start_s,
            end_s,
            {
                semconv.GEN_AI_OPERATION: "chat",
                semconv.GEN_AI_PROVIDER: semconv.PROVIDER,
                semconv.GEN_AI_REQUEST_MODEL: record.model_requested,
                semconv.GEN_AI_RESPONSE_MODEL: record.model_served,
                semconv.GEN_AI_RESPONSE_ID: str(record.id),
                semconv.GEN_AI_FINISH_REASONS: None if record.finish_reason is None else (record.finish_reason,),
                semconv.GEN_AI_CHOICES: record.choices if record.choices > 1 else None,
                semconv.GEN_AI_INPUT_TOKENS: record.prompt_tokens,
                semconv.GEN_AI_OUTPUT_TOKENS: record.completion_tokens,
                semconv.GEN_AI_CACHED_TOKENS: record.cached_tokens,
                semconv.CONSTRAINT_KIND: record.constraint_kind,
                semconv.CONSTRAINT_BACKEND: record.backend,
                semconv.COST_USD: None if is_discarded else record.cost_usd,
                semconv.DISCARDED: is_discarded or None,
            },
            error=record.error_code,
        )
        for index, timeline in enumerate(timelines):
            self._engine(timeline, index if len(timelines) > 1 else None, context)

    def end(self, status: int, *, error: str | None = None) -> None:
        """End the HTTP span; ending again changes nothing, so it may stand in a `finally`."""
        if self._ended:
            return
        self._ended = True
        self._span.set_attribute(semconv.HTTP_STATUS, status)
        if error is not None:
            self._span.set_attribute(semconv.ERROR_TYPE, error)
        if status >= 500 or (error is not None and status < 400):  # 4xx is the client's error, not the server's
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _engine(self, timeline: RequestTimeline, index: int | None, context: Context) -> None:
        """Whatever the request reached; a step that it did not leave lasts until the end."""
        end_s = timeline.finished_s or time.monotonic()
        choice: Attributes = {semconv.CHOICE_INDEX: index}
        if not timeline.arrived_s:
            return
        self.child(semconv.SPAN_QUEUE, timeline.arrived_s, timeline.admitted_s or end_s, choice, context=context)
        if timeline.admitted_s:
            prefill = {
                semconv.TOKENS_COMPUTED: timeline.computed_tokens,
                semconv.TOKENS_CACHED: timeline.cached_tokens,
                semconv.CACHE_MISS: timeline.cache_miss,
                semconv.PREEMPTIONS: timeline.preemptions,
            }
            first_s = timeline.first_token_s or end_s
            self.child(semconv.SPAN_PREFILL, timeline.admitted_s, first_s, {**choice, **prefill}, context=context)
        if timeline.first_token_s:
            decode = {
                semconv.TOKENS_GENERATED: len(timeline.token_times_s),
                semconv.TOKENS_DRAFTED: timeline.drafted_tokens,
                semconv.TOKENS_ACCEPTED: timeline.accepted_tokens,
                semconv.TOKENS_FORCED: timeline.forced_tokens,
                semconv.STEPS: timeline.steps,
                semconv.MASK_SECONDS: timeline.mask_s,
            }
            for source, counts in timeline.drafts.items():
                decode[f"{semconv.DRAFTS_PREFIX}{source}.drafted"] = counts.drafted
                decode[f"{semconv.DRAFTS_PREFIX}{source}.accepted"] = counts.accepted
            self.child(semconv.SPAN_DECODE, timeline.first_token_s, end_s, {**choice, **decode}, context=context)

    def _ns(self, monotonic_s: float) -> int:
        return self._epoch_ns + round(monotonic_s * 1e9)
