"""The chunks of a streamed completion, in the order and shape of OpenAI's."""

from collections.abc import Sequence

from gateway.openai.answer import Answer, AnswerEvent, ReasoningDelta
from gateway.openai.job import Job
from gateway.openai.responses import (
    ChatChunk,
    ChunkChoice,
    Delta,
    FunctionDelta,
    LogprobsOut,
    RouterOut,
    ToolCallDelta,
    Usage,
)
from gateway.openai.sse import frame
from gateway.routing.catalogue import ServedModel
from grammars.dialects import ArgumentsDelta, CallStarted
from grammars.dialects.dialect import TextDelta


class ChunkWriter:
    """Frames of one stream. With `include_usage` every chunk but the last carries `usage: null`."""

    def __init__(self, job: Job, model: ServedModel) -> None:
        self._job, self._model = job, model
        options = job.request.stream_options
        self.include_usage = bool(options is not None and options.include_usage)

    def opening(self, index: int) -> bytes:
        """The first chunk of a choice."""
        return self._frame(index, Delta(role="assistant", content="", refusal=None))

    def pieces(
        self, index: int, answer: Answer, events: Sequence[AnswerEvent], logprobs: LogprobsOut | None
    ) -> list[bytes]:
        """One chunk for each event; logprobs go with the first, or alone when the tokens showed nothing yet."""
        frames = []
        for event in events:
            frames.append(self._frame(index, _delta(event, answer), logprobs))
            logprobs = None
        if logprobs is not None:
            frames.append(self._frame(index, Delta(), logprobs))
        return frames

    def finish(self, index: int, reason: str, router: RouterOut | None) -> bytes:
        """The last chunk of a choice. router: with the last choice's, unless a usage chunk follows."""
        return self._frame(index, Delta(), finish_reason=reason, router=router)

    def totals(self, usage: Usage, router: RouterOut) -> bytes:
        """The chunk after all choices, with the usage."""
        chunk = self._chunk([])
        chunk.usage, chunk.router = usage, router
        return frame(chunk)

    def _frame(
        self,
        index: int,
        delta: Delta,
        logprobs: LogprobsOut | None = None,
        finish_reason: str | None = None,
        router: RouterOut | None = None,
    ) -> bytes:
        choice = ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)
        chunk = self._chunk([choice])
        if router is not None:
            chunk.router = router
        return frame(chunk)

    def _chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        chunk = ChatChunk(
            id=self._job.arrival.completion_id,
            created=self._job.arrival.created,
            model=self._model.id,
            choices=choices,
            system_fingerprint=self._model.fingerprint,
            service_tier=self._job.service_tier,
        )
        if self.include_usage:
            chunk.usage = None
        return chunk


def _delta(event: AnswerEvent, answer: Answer) -> Delta:
    """A call's first delta carries id, type and name; the later ones only more arguments (vllm#14951, #16340)."""
    match event:
        case TextDelta():
            return Delta(content=event.fragment)
        case ReasoningDelta():
            return Delta(reasoning=event.fragment)
        case CallStarted():
            call = ToolCallDelta(
                index=event.index,
                id=answer.calls[event.index].id,
                type="function",
                function=FunctionDelta(name=event.name, arguments=""),
            )
        case ArgumentsDelta():
            call = ToolCallDelta(index=event.index, function=FunctionDelta(arguments=event.fragment))
    return Delta(tool_calls=[call])
