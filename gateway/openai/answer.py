"""One choice's message as it grows: engine text in, text and tool calls out, streamed or not."""

from engine.messages import Finished
from engine.request import FinishReason
from gateway.openai.errors import ApiError, overloaded
from gateway.openai.identity import new_identifier
from gateway.openai.responses import FunctionOut, MessageOut, ToolCallOut
from grammars.dialects import ArgumentsDelta, CallEvent, CallStarted, Dialect
from grammars.dialects.dialect import TextDelta


class Answer:
    """dialect: how calls are written; None when the answer may call nothing, so that `[` is only text."""

    def __init__(self, dialect: Dialect | None) -> None:
        self._parser = None if dialect is None else dialect.stream()
        self._text: list[str] = []
        self.calls: list[ToolCallOut] = []

    def feed(self, text: str) -> list[CallEvent]:
        """What the next characters mean."""
        if not text:
            return []
        events: list[CallEvent] = [TextDelta(text)] if self._parser is None else self._parser.feed(text)
        for event in events:
            match event:
                case TextDelta():
                    self._text.append(event.fragment)
                case CallStarted():
                    self.calls.append(ToolCallOut(new_identifier("call_"), FunctionOut(event.name, "")))
                case ArgumentsDelta():
                    self.calls[event.index].function.arguments += event.fragment
        return events

    def message(self) -> MessageOut:
        """The whole message. Content is null when there are only calls, as with OpenAI."""
        text = "".join(self._text)
        if self.calls:
            return MessageOut(content=text or None, tool_calls=self.calls)
        return MessageOut(content=text)

    def finish_reason(self, event: Finished, *, is_constrained: bool) -> str:
        """OpenAI's word for how the answer ended.

        A constrained answer that one of the client's own stop strings cut short says `length`, since to clients that
        means incomplete. Raises ApiError for an answer that ended out of order.
        """
        match event.reason:
            case FinishReason.LENGTH:
                return "length"
            case FinishReason.STOP:
                if is_constrained and not event.is_complete:
                    return "length"
                return "tool_calls" if self.calls else "stop"
            case FinishReason.DEADLINE:
                raise ApiError(
                    504,
                    "deadline_exceeded",
                    "The answer took longer than this server allows; ask for fewer tokens.",
                    headers={"x-should-retry": "false"},
                )
        raise overloaded("cancelled", "The server ended the request before it was answered; send it again.", 1.0, 503)
