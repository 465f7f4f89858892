"""One HTTP request for generation from its body to its record: what is opened here is closed once, whatever happens."""

from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType

from gateway.accounts.authenticator import Principal
from gateway.openai.answering import Answering
from gateway.openai.choices import Progress
from gateway.openai.chunks import ChunkWriter
from gateway.openai.disconnect import ClientDisconnected
from gateway.openai.errors import CLIENT_GONE, ApiError, from_exception, log_unforeseen
from gateway.openai.explain import explanation
from gateway.openai.expressible import expressible
from gateway.openai.job import Arrival, Job
from gateway.openai.ledger import decision_record, request_record, router_headers, router_of, usage
from gateway.openai.responses import ChatCompletion, RouterOut
from gateway.openai.run import Run
from gateway.openai.spans import emit_spans
from gateway.openai.sse import DONE, frame
from gateway.services import Services
from gateway.telemetry.request_trace import RequestTrace
from grammars.validation import unjudged

_DEPRECATED = "@1793491200"  # RFC 9745: since 1 November 2026, the first release


class Exchange:
    """`begin`, then `complete`, or `open_stream` and `frames`; `fail` for what was raised; `close` in any case."""

    def __init__(self, services: Services, trace: RequestTrace, principal: Principal, arrival: Arrival) -> None:
        self._services, self._trace, self._principal, self._arrival = services, trace, principal, arrival
        self._job: Job | None = None
        self._run: Run | None = None
        self._status, self._error_code = 200, ""
        self._is_closed = False

    @property
    def job(self) -> Job:
        """The request, once `begin` has read it."""
        if self._job is None:
            raise RuntimeError("the request has not been read")
        return self._job

    async def begin(self, body: bytes, *, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        """Read the request and start it on the engine. headers: the request's. Raises whatever refuses it."""
        services = self._services
        self._job = await services.intake.read(body, self._principal, self._arrival, headers=headers)
        compile_s = services.settings.limits.compile_s
        self._job = await expressible(self._job, services.engine, compile_s=compile_s)
        self._run = Run(services.engine, services.router, services.catalogue, self._job, services.settings)
        await self._run.start()

    async def complete(self) -> ChatCompletion:
        """The whole answer."""
        run, answering = self._started(), self._answering()
        async for _ in answering.progress():
            pass
        model = run.attempt.model
        return ChatCompletion(
            id=self.job.arrival.completion_id,
            created=self.job.arrival.created,
            model=model.id,
            choices=answering.choices.completed(),
            usage=usage(run.attempt.outcome),
            system_fingerprint=model.fingerprint,
            service_tier=self.job.service_tier,
            router=self.router(),
        )

    async def open_stream(self) -> AsyncGenerator[bytes, None]:
        """The frames of the answer. Waits for the first that there is to tell, so that a refusal still is an HTTP
        status, and the headers know who answers.
        """
        progress = self._answering().progress()
        first = await anext(progress)
        return self._frames(first, progress)

    async def _frames(self, first: Progress, rest: AsyncGenerator[Progress, None]) -> AsyncGenerator[bytes, None]:
        try:
            async for data in self._chunks(first, rest):
                yield data
            yield DONE
        except Exception as exc:
            error = self.fail(exc)
            self._status = 200  # that has been sent; the record's error_code tells
            yield frame(error.body)

    async def _chunks(self, first: Progress, rest: AsyncGenerator[Progress, None]) -> AsyncGenerator[bytes, None]:
        attempt = self._started().attempt  # told of once, so it is the one that answers
        writer = ChunkWriter(self.job, attempt.model)
        for index in range(self.job.n):
            yield writer.opening(index)
        open_ = self.job.n
        progress: Progress | None = first
        while progress is not None:
            open_ -= progress.finish_reason is not None
            for data in self._progress(writer, progress, is_last=open_ == 0):
                yield data
            progress = await anext(rest, None)
        if writer.include_usage:
            yield writer.totals(usage(attempt.outcome), self.router())

    def _progress(self, writer: ChunkWriter, progress: Progress, *, is_last: bool) -> list[bytes]:
        pieces = writer.pieces(progress.index, progress.answer, progress.events, progress.logprobs)
        if progress.finish_reason is None:
            return pieces
        router = self.router() if is_last and not writer.include_usage else None
        return [*pieces, writer.finish(progress.index, progress.finish_reason, router)]

    def router(self) -> RouterOut:
        """The decision, with its cost once every choice has finished."""
        outcome = self._started().attempt.outcome
        is_done = len(outcome.finished) == self.job.n
        cost = outcome.cost(self._services.settings.prices) if is_done else None
        router = router_of(self.job, outcome.decision, outcome, cost)
        if self.job.ask.explain and (route := self._started().route) is not None:
            exploration = self._services.settings.routing.exploration
            router.explain = explanation(self.job.question(), route, exploration=exploration)
        return router

    def headers(self) -> dict[str, str]:
        """Headers of the response: the decision, ignored and deprecated parameters, the trace."""
        reading = self.job.reading
        headers = router_headers(self.router())
        if reading.ignored:
            headers["x-ignored-params"] = ",".join(map(_printable, reading.ignored))[:1024]
        if warnings := self._warnings():
            headers["x-constraint-warnings"] = "; ".join(map(_printable, warnings))[:1024]
        if reading.deprecated:
            headers["deprecation"] = _DEPRECATED
            headers["x-deprecated-params"] = ",".join(reading.deprecated)
        if self._trace.traceparent is not None:
            headers["traceparent"] = self._trace.traceparent
        return headers

    def _warnings(self) -> list[str]:
        """What the constraint says that asserts nothing, and whether its answers have no second reader."""
        run, constraint = self._run, self.job.asked.constraint
        found = [] if run is None or run.compiled is None else list(run.compiled.warnings)
        if constraint is not None and (why := unjudged(constraint)) is not None:
            found.append(f"answers are not validated a second time: {why}")
        return found

    def fail(self, exc: BaseException) -> ApiError:
        """Note why the request failed, for its record; returns the error to send."""
        if not isinstance(exc, Exception) or isinstance(exc, ClientDisconnected):
            self._status, self._error_code = CLIENT_GONE, "client_disconnected"
            return ApiError(CLIENT_GONE, self._error_code, "The client closed the connection.")
        error = from_exception(exc)
        log_unforeseen(exc, error)
        self._status, self._error_code = error.status, error.detail.code or "error"
        return error

    def close(self) -> None:
        """Free the engine, write the records, end the trace. Calling it again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._run is not None:
            self._run.close()
        if self._job is not None:
            self._write(self._job)
        self._trace.end(self._status, error=self._error_code or None)
        self._services.drain.leave()

    def _write(self, job: Job) -> None:
        prices = self._services.settings.prices
        outcome = None if self._run is None else self._run.outcome
        if outcome is not None and not self._error_code and len(outcome.finished) < job.n:
            self.fail(ClientDisconnected())  # the stream was closed before its end
        record = request_record(
            job,
            outcome,
            prices,
            status=self._status,
            error_code=self._error_code or None,
            trace_id=self._trace.trace_id,
        )
        timelines = [] if outcome is None else [event.timeline for _, event in sorted(outcome.finished.items())]
        self._services.recorder.put(record)
        self._services.metrics.observe_request(record, timelines)
        if outcome is not None:
            decision = decision_record(job, outcome, prices)
            self._services.recorder.put(decision)
            self._services.metrics.observe_decision(decision)
            if not self._error_code:
                self._services.intake.answered(job, outcome.model, routed=outcome.prepared is not None)
                compared = self._services.shadow.offer(job, outcome)
                self._services.grading.offer(job, outcome, compared)
        if self._run is not None:
            emit_spans(self._trace, self._run, record, timelines)

    def _answering(self) -> Answering:
        services = self._services
        return Answering(
            self._started(),
            self.job,
            services.intake.prompters,
            services.settings.prices,
            uses_predictions=services.settings.uses_predictions,
        )

    def _started(self) -> Run:
        if self._run is None or self._run.outcome is None:
            raise RuntimeError("the request has not been started")
        return self._run


def _printable(text: str) -> str:
    """For header values, which are printable ASCII: what is not shows as an escape, but never breaks the response."""
    return "".join(char for char in text.encode("ascii", "backslashreplace").decode() if char.isprintable())
