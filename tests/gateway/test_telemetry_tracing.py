"""One whole trace per request, exported only when the standard variables say so."""

import http.server
import subprocess
import sys
import threading
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from engine.request import DraftCounts, RequestTimeline
from gateway.storage.records import RequestRecord
from gateway.telemetry import semconv
from gateway.telemetry.request_trace import RequestTrace
from gateway.telemetry.tracing import Tracing, TracingError, exports

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorded:
    """A tracing setup whose spans stay in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(SimpleSpanProcessor(self._exporter), version="1.2.3")

    def trace(self, headers: dict[str, str] | None = None, arrived_s: float | None = None) -> RequestTrace:
        return RequestTrace(self.tracing.tracer, "POST", "/v1/chat/completions", headers or {}, arrived_s)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def record(**fields: object) -> RequestRecord:
    known: dict[str, object] = {
        "endpoint": "/v1/chat/completions",
        "model_requested": "auto",
        "model_served": "small",
        "status": 200,
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "finish_reason": "stop",
        "user": "someone",
    }
    return RequestRecord(**(known | fields))  # type: ignore[arg-type]


def timeline(now_s: float) -> RequestTimeline:
    return RequestTimeline(
        arrived_s=now_s - 1.0,
        admitted_s=now_s - 0.9,
        first_token_s=now_s - 0.6,
        finished_s=now_s - 0.1,
        token_times_s=[now_s - 0.6, now_s - 0.3, now_s - 0.1],
        cached_tokens=4,
        computed_tokens=8,
    )


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_request_makes_one_trace_of_seven_spans() -> None:
    recorded, now_s = Recorded(), time.monotonic()
    trace = recorded.trace({"traceparent": PARENT, "tracestate": "a=b"}, arrived_s=now_s - 1.2)
    trace.child(semconv.SPAN_COMPILE, now_s - 1.2, now_s - 1.1, {semconv.CONSTRAINT_CACHED: False})
    trace.child(semconv.SPAN_ROUTE, now_s - 1.1, now_s - 1.0, {semconv.ROUTE_REASON: "score", "absent": None})
    trace.generation(record(), now_s - 1.0, now_s - 0.1, [timeline(now_s)])
    trace.end(200)
    spans = recorded.spans()
    chat = spans["chat auto"]
    root = spans["POST /v1/chat/completions"]
    assert set(spans) == {
        root.name,
        chat.name,
        semconv.SPAN_COMPILE,
        semconv.SPAN_ROUTE,
        semconv.SPAN_QUEUE,
        semconv.SPAN_PREFILL,
        semconv.SPAN_DECODE,
    }
    assert root.kind is SpanKind.SERVER
    assert root.context is not None
    assert f"{root.context.trace_id:032x}" == PARENT.split("-")[1] == trace.trace_id
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == PARENT.split("-")[2]
    parents = {name: span.parent.span_id for name, span in spans.items() if span.parent is not None}
    assert chat.context is not None
    for name in (chat.name, semconv.SPAN_COMPILE, semconv.SPAN_ROUTE):
        assert parents[name] == root.context.span_id
    for name in (semconv.SPAN_QUEUE, semconv.SPAN_PREFILL, semconv.SPAN_DECODE):
        assert parents[name] == chat.context.span_id
    durations = {name: seconds(span) for name, span in spans.items()}
    assert durations[semconv.SPAN_QUEUE] == pytest.approx(0.1, abs=1e-4)
    assert durations[semconv.SPAN_PREFILL] == pytest.approx(0.3, abs=1e-4)
    assert durations[semconv.SPAN_DECODE] == pytest.approx(0.5, abs=1e-4)
    assert durations[root.name] >= 1.2 - 1e-4
    assert root.resource.attributes["service.name"] == "pointsman"
    assert chat.attributes is not None
    assert chat.attributes[semconv.GEN_AI_RESPONSE_MODEL] == "small"
    assert chat.attributes[semconv.GEN_AI_INPUT_TOKENS] == 12
    assert "someone" not in str([dict(span.attributes or {}) for span in spans.values()])


def test_the_decode_span_says_who_drafted_and_what_was_accepted() -> None:
    recorded, now_s = Recorded(), time.monotonic()
    drafts = {"ngram": DraftCounts(5, 3), "prediction": DraftCounts(2, 2)}
    trace = recorded.trace()
    seen = msgspec.structs.replace(timeline(now_s), drafts=drafts, drafted_tokens=7, accepted_tokens=5, forced_tokens=1)
    trace.generation(record(), now_s - 1, now_s, [seen])
    trace.end(200)
    found = dict(recorded.spans()[semconv.SPAN_DECODE].attributes or {})
    expected = {
        "pointsman.tokens.drafted": 7,
        "pointsman.tokens.accepted": 5,
        "pointsman.tokens.forced": 1,
        "pointsman.drafts.ngram.drafted": 5,
        "pointsman.drafts.ngram.accepted": 3,
        "pointsman.drafts.prediction.drafted": 2,
        "pointsman.drafts.prediction.accepted": 2,
    }
    assert {
        name: value for name, value in found.items() if name.startswith("pointsman.drafts.")
    }.keys() <= expected.keys()
    assert found | expected == found


@given(st.permutations(["arrived_s", "admitted_s", "first_token_s", "finished_s"]), st.integers(0, 4))
def test_every_span_ends_after_it_began_whatever_was_reached(order: list[str], reached: int) -> None:
    recorded, now_s = Recorded(), time.monotonic()
    times = {name: now_s - 1 + index / 10 for index, name in enumerate(order[:reached])}
    trace = recorded.trace()
    trace.generation(record(error_code="engine_died"), now_s - 1, now_s, [msgspec.convert(times, RequestTimeline)])
    trace.end(503)
    for span in recorded.spans().values():
        assert seconds(span) >= 0
    engine_spans = {name for name in recorded.spans() if name.startswith("engine.")}
    assert (semconv.SPAN_QUEUE in engine_spans) == ("arrived_s" in times)


def test_each_choice_has_its_own_spans() -> None:
    recorded, now_s = Recorded(), time.monotonic()
    trace = recorded.trace()
    trace.generation(record(choices=2), now_s - 1, now_s, [timeline(now_s), timeline(now_s)])
    trace.end(200)
    finished = recorded._exporter.get_finished_spans()
    indices = [span.attributes[semconv.CHOICE_INDEX] for span in finished if span.name == semconv.SPAN_DECODE]  # type: ignore[index]
    assert indices == [0, 1]


@pytest.mark.parametrize(
    ("status", "error", "is_error"),
    [(200, None, False), (400, "invalid_schema", False), (503, "engine_died", True), (200, "engine_died", True)],
)
def test_only_our_own_failures_are_errors(status: int, error: str | None, is_error: bool) -> None:
    recorded = Recorded()
    trace = recorded.trace()
    trace.end(status, error=error)
    trace.end(500, error="a second end changes nothing")
    (span,) = recorded.spans().values()
    assert (span.status.status_code is StatusCode.ERROR) is is_error
    assert span.attributes is not None
    assert span.attributes[semconv.HTTP_STATUS] == status
    assert span.attributes.get(semconv.ERROR_TYPE) == error


@given(st.text(max_size=80))
def test_an_unreadable_traceparent_starts_a_trace_of_its_own(header: str) -> None:
    trace = Recorded().trace({"traceparent": header})
    assert trace.trace_id is not None
    assert int(trace.trace_id, 16) != 0
    trace.end(200)


def test_without_an_exporter_requests_still_have_a_trace_id() -> None:
    tracing = Tracing(None)
    fresh = RequestTrace(tracing.tracer, "GET", "/", {})
    continued = RequestTrace(tracing.tracer, "GET", "/", {"traceparent": PARENT})
    assert fresh.trace_id != RequestTrace(tracing.tracer, "GET", "/", {}).trace_id
    assert continued.trace_id == PARENT.split("-")[1]
    assert fresh.traceparent is not None
    assert int(fresh.traceparent[-2:], 16) & 1 == 0, "what is not recorded is not sampled"
    tracing.close()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_an_endpoint_alone_turns_exporting_on(environ: dict[str, str], expected: bool) -> None:
    assert exports(environ) is expected


@pytest.mark.parametrize(
    "environ", [{"OTEL_TRACES_EXPORTER": "jaeger"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}], ids=str
)
def test_what_is_not_offered_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(TracingError, match="use "):
        exports({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"} | environ)


def test_spans_reach_a_collector_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        tracing = Tracing.from_environment()
        RequestTrace(tracing.tracer, "POST", "/v1/chat/completions", {}).end(200)
        tracing.close()
        server.shutdown()
        thread.join()
    assert [path for path, _ in received] == ["/v1/traces"]
    assert b"POST /v1/chat/completions" in received[0][1]
    assert b"pointsman" in received[0][1]


def test_nothing_is_printed_without_configuration() -> None:
    program = (
        "from gateway.telemetry.tracing import Tracing\n"
        "from gateway.telemetry.request_trace import RequestTrace\n"
        "tracing = Tracing.from_environment()\n"
        "RequestTrace(tracing.tracer, 'GET', '/', {}).end(200)\n"
        "tracing.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env={}, check=True, timeout=60)
    assert done.stdout + done.stderr == b""


def test_the_name_of_the_service_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway-7")
    recorded = Recorded()
    recorded.trace().end(200)
    (span,) = recorded.spans().values()
    assert span.resource.attributes["service.name"] == "gateway-7"
