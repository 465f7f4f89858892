"""One HTTP request for generation from its body to its record: what is opened here is closed once, whatever happens."""

from collections.abc import AsyncGenerator

from gateway.accounts.authenticator import Principal
from gateway.openai.choices import Choices, Progress
from gateway.openai.chunks import ChunkWriter
from gateway.openai.disconnect import ClientDisconnected
from gateway.openai.errors import ApiError, from_exception, log_unforeseen
from gateway.openai.job import Arrival, Job
from gateway.openai.ledger import decision_record, request_record, router_headers, router_of, usage
from gateway.openai.responses import ChatCompletion, RouterOut
from gateway.openai.run import Piece, Run
from gateway.openai.spans import emit_spans
from gateway.openai.sse import DONE, frame
from gateway.routing.outcome import Outcome
from gateway.services import Services
from gateway.telemetry.request_trace import RequestTrace
from grammars.validation import unjudged

_DEPRECATED = "@1793491200"  # RFC 9745: since 1 November 2026, the first release
CLIENT_GONE = 499  # in the records only: there is no one left to send it to


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

    async def begin(self, body: bytes, *, explore: bool = True) -> None:
        """Read the request and start it on the engine. explore: routing may. Raises whatever refuses it."""
        self._job = await self._services.intake.read(body, self._principal, self._arrival, explore=explore)
        services = self._services
        compile_s = services.settings.limits.compile_s
        self._run = Run(services.engine, services.router, services.catalogue, self._job, compile_s=compile_s)
        await self._run.start()

    async def complete(self) -> ChatCompletion:
        """The whole answer."""
        run, outcome = self._started()
        choices = self._choices(outcome)
        async for piece in run.pieces():
            choices.take(piece)
        return ChatCompletion(
            id=self.job.arrival.completion_id,
            created=self.job.arrival.created,
            model=run.model.id,
            choices=choices.completed(),
            usage=usage(outcome),
            system_fingerprint=run.model.fingerprint,
            service_tier=self.job.service_tier,
            router=self.router(),
        )

    async def open_stream(self) -> AsyncGenerator[bytes, None]:
        """The frames of the answer. Waits for the engine's first event, so that a refusal still is an HTTP status."""
        run, _ = self._started()
        pieces = run.pieces()
        first = await anext(pieces)
        return self._frames(first, pieces)

    async def _frames(self, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
        try:
            async for data in self._chunks(first, rest):
                yield data
            yield DONE
        except Exception as exc:
            error = self.fail(exc)
            self._status = 200  # that has been sent; the record's error_code tells
            yield frame(error.body)

    async def _chunks(self, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
        run, outcome = self._started()
        choices, writer = self._choices(outcome), ChunkWriter(self.job, run.model)
        for index in range(self.job.n):
            yield writer.opening(index)
        open_ = self.job.n
        piece: Piece | None = first
        while piece is not None:
            progress = choices.take(piece)
            open_ -= progress.finish_reason is not None
            for data in self._progress(writer, progress, is_last=open_ == 0):
                yield data
            piece = await anext(rest, None)
        if writer.include_usage:
            yield writer.totals(usage(outcome), self.router())

    def _progress(self, writer: ChunkWriter, progress: Progress, *, is_last: bool) -> list[bytes]:
        pieces = writer.pieces(progress.index, progress.answer, progress.events, progress.logprobs)
        if progress.finish_reason is None:
            return pieces
        router = self.router() if is_last and not writer.include_usage else None
        return [*pieces, writer.finish(progress.index, progress.finish_reason, router)]

    def router(self) -> RouterOut:
        """The decision, with its cost once every choice has finished."""
        _, outcome = self._started()
        is_done = len(outcome.finished) == self.job.n
        cost = outcome.cost(self._services.settings.prices) if is_done else None
        return router_of(self.job, outcome.decision, outcome, cost)

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
        if self._run is not None:
            emit_spans(self._trace, self._run, record, timelines)

    def _choices(self, outcome: Outcome) -> Choices:
        prompter = self._services.intake.prompters[outcome.decision.model]
        return Choices(self.job, prompter.tokenizer, prompter.dialect, outcome)

    def _started(self) -> tuple[Run, Outcome]:
        if self._run is None or self._run.outcome is None:
            raise RuntimeError("the request has not been started")
        return self._run, self._run.outcome


def _printable(text: str) -> str:
    """For header values, which are printable ASCII: what is not shows as an escape, but never breaks the response."""
    return "".join(char for char in text.encode("ascii", "backslashreplace").decode() if char.isprintable())
