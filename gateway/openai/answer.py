"""One choice's message as it grows: engine text in, thoughts, text and tool calls out, streamed or not."""

from dataclasses import dataclass

from msgspec import UNSET

from engine.messages import Finished
from engine.request import FinishReason
from gateway.openai.errors import ApiError, overloaded
from gateway.openai.identity import new_identifier
from gateway.openai.responses import FunctionOut, MessageOut, ToolCallOut
from grammars.dialects import ArgumentsDelta, CallEvent, CallStarted, Dialect
from grammars.dialects.beginnings import n_begun
from grammars.dialects.dialect import TextDelta


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what is thought before the answer."""

    fragment: str


AnswerEvent = CallEvent | ReasoningDelta


class Answer:
    """dialect: how calls are written; None when the answer may call nothing, so that `[` is only text. reasoning: the
    text that ends what is thought first, itself shown nowhere; None where nothing is. after_text: calls may come behind
    text, where the dialect has them there; not where the text is JSON, in which their marks are only text. must_call:
    what was held back at the end of a cut answer is the beginning of a call, and no text.
    """

    def __init__(
        self,
        dialect: Dialect | None,
        reasoning: str | None = None,
        *,
        after_text: bool = True,
        must_call: bool = False,
    ) -> None:
        self._parser = None if dialect is None else dialect.stream(after_text=after_text)
        self._must_call = must_call
        self._until, self._held = reasoning, ""  # held: what may turn out to be a part of the end
        self._thoughts: list[str] | None = None if reasoning is None else []
        self._text: list[str] = []
        self.calls: list[ToolCallOut] = []

    def feed(self, text: str) -> list[AnswerEvent]:
        """What the next characters mean."""
        if not text:
            return []
        if self._until is None:
            return [*self._answered(text)]
        text = self._held + text
        end = text.find(self._until)
        if end < 0:
            n = n_begun(text, self._until)
            text, self._held = text[: len(text) - n], text[len(text) - n :]
            return self._thought(text)
        rest = text[end + len(self._until) :]
        self._until, self._held = None, ""
        return [*self._thought(text[:end]), *self._answered(rest)]

    def end(self) -> list[AnswerEvent]:
        """What is known once no more characters come: what was held back, as it might have become something else."""
        held, self._held = self._held, ""
        if self._until is not None or self._parser is None:
            return self._thought(held)
        return [] if self._must_call else [*self._noted(self._parser.end())]

    def _thought(self, text: str) -> list[AnswerEvent]:
        if not text or self._thoughts is None:
            return []
        self._thoughts.append(text)
        return [ReasoningDelta(text)]

    def _answered(self, text: str) -> list[CallEvent]:
        if not text:
            return []
        return self._noted([TextDelta(text)] if self._parser is None else self._parser.feed(text))

    def _noted(self, events: list[CallEvent]) -> list[CallEvent]:
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
        reasoning = UNSET if self._thoughts is None else "".join(self._thoughts)
        if self.calls:
            return MessageOut(content=text or None, tool_calls=self.calls, reasoning=reasoning)
        return MessageOut(content=text, reasoning=reasoning)

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
