"""Sets tracing up from OpenTelemetry's own variables. Without an OTLP endpoint nothing is exported or printed."""

import os
from collections.abc import Mapping

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer

from gateway.telemetry.semconv import PROVIDER


class TracingError(Exception):
    """A standard variable asks for what cannot be done; the message says what to change."""


class Tracing:
    """Owns a tracer provider of its own: nothing global is set, so two gateways can live in one process."""

    def __init__(self, processor: SpanProcessor | None, *, version: str = "") -> None:
        """processor: gets finished spans; None: none is recorded, but requests still get a trace id for logs."""
        attributes = {SERVICE_VERSION: version} if version else {}
        if not os.environ.get(OTEL_SERVICE_NAME) and "service.name=" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes[SERVICE_NAME] = PROVIDER
        # With a processor the sampler is None, which means OTEL_TRACES_SAMPLER.
        self._provider = TracerProvider(
            sampler=ALWAYS_OFF if processor is None else None,
            resource=Resource.create(attributes),
            shutdown_on_exit=False,
        )
        if processor is not None:
            self._provider.add_span_processor(processor)
        self.tracer: Tracer = self._provider.get_tracer(PROVIDER, version)

    @classmethod
    def from_environment(cls, *, version: str = "") -> "Tracing":
        """Export by OTLP over HTTP when an endpoint is set. Raises TracingError for another exporter or protocol."""
        if not exports(os.environ):
            return cls(None, version=version)
        return cls(BatchSpanProcessor(OTLPSpanExporter()), version=version)

    def close(self) -> None:
        """Export what is left; waits for the collector at most as long as OTEL_EXPORTER_OTLP_TIMEOUT says."""
        self._provider.shutdown()


def exports(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for OTLP. Raises TracingError for what is not offered."""
    if not (environ.get(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) or environ.get(OTEL_EXPORTER_OTLP_ENDPOINT)):
        return False
    exporter = environ.get(OTEL_TRACES_EXPORTER) or "otlp"
    if exporter == "none":
        return False
    if exporter != "otlp":
        raise TracingError(f"{OTEL_TRACES_EXPORTER} is {exporter!r}: use otlp or none")
    protocol = environ.get(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL) or environ.get(OTEL_EXPORTER_OTLP_PROTOCOL)
    if protocol not in (None, "", "http/protobuf"):
        raise TracingError(f"{OTEL_EXPORTER_OTLP_PROTOCOL} is {protocol!r}: use http/protobuf (usually port 4318)")
    return True
