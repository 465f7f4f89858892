"""The answers of one job while they grow: events in, progress out. A finished answer is validated before it counts."""

import hashlib
import logging
from dataclasses import dataclass, field

import msgspec

from engine.messages import Delta, Finished
from engine.request import FinishReason
from engine.tokenizer import Tokenizer
from gateway.openai.answer import Answer, AnswerEvent
from gateway.openai.errors import ApiError
from gateway.openai.generation import Piece
from gateway.openai.job import Job
from gateway.openai.logprobs import logprobs_out
from gateway.openai.responses import ChoiceOut, LogprobsOut
from gateway.routing.outcome import Outcome
from grammars.constraint import Constraint, ToolCalls
from grammars.dialects import get_dialect
from grammars.validation import Unjudged, validate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What one event added to choice `index`; finish_reason is set on its last."""

    index: int
    answer: Answer
    events: list[AnswerEvent]
    logprobs: LogprobsOut | None = None
    finish_reason: str | None = None


@dataclass(slots=True)
class _Open:
    answer: Answer
    logprobs: LogprobsOut | None
    finish_reason: str | None = None


@dataclass(slots=True)
class Choices:
    """Reads the pieces of a run. Streams take each `Progress`, other responses take `completed` at the end."""

    job: Job
    tokenizer: Tokenizer
    dialect: str
    outcome: Outcome
    _open: list[_Open] = field(default_factory=list)

    def __post_init__(self) -> None:
        """One empty answer for each choice."""
        asked = self.job.asked
        for _ in range(self.job.n):
            dialect = get_dialect(self.dialect) if asked.tools.callable else None
            must_call = asked.tools.mode == "required"
            answer = Answer(dialect, asked.reasoning, after_text=not asked.is_json, must_call=must_call)
            self._open.append(_Open(answer, LogprobsOut([]) if self.job.request.logprobs else None))

    @property
    def _constraint(self) -> Constraint | None:
        return self.job.constraint(self.outcome.model)

    def take(self, piece: Piece) -> Progress:
        """Note an event. Raises ApiError for an answer that breaks its constraint, or ended out of order."""
        choice, event = self._open[piece.index], piece.event
        if isinstance(event, Delta):
            self.outcome.saw_tokens(piece.index, len(event.token_ids))
            logprobs = None
            if event.logprobs:  # also where only the cascade asked for them, and nobody is shown any
                self.outcome.saw_logprobs([entry.logprob for entry in event.logprobs])
            if choice.logprobs is not None and event.logprobs:
                logprobs = logprobs_out(event.logprobs, self.tokenizer)
                choice.logprobs.content.extend(logprobs.content)
            return Progress(piece.index, choice.answer, choice.answer.feed(event.text), logprobs)
        self.outcome.saw_end(piece.index, event)
        constraint = self._constraint
        if constraint is not None and event.stop_match is not None:
            is_complete = _is_complete(constraint, event)
            if event.is_complete and not is_complete and isinstance(event.stop_match, str):
                self._validate(self.tokenizer.decode(event.token_ids))  # what the engine called complete, stop and all
            event = msgspec.structs.replace(event, is_complete=is_complete)
        choice.finish_reason = choice.answer.finish_reason(event, is_constrained=constraint is not None)
        if constraint is not None and event.reason is FinishReason.STOP and event.is_complete:
            self._validate(event.text)
        return Progress(piece.index, choice.answer, choice.answer.end(), finish_reason=choice.finish_reason)

    def free_text(self, index: int) -> str | None:
        """What choice `index` has said, without thoughts, where it could say what it liked; None where a constraint
        shaped it, or where it calls tools.
        """
        constraint, choice = self._constraint, self._open[index]
        is_free = constraint is None or (isinstance(constraint, ToolCalls) and constraint.answer is None)
        return choice.answer.message().content or "" if is_free and not choice.answer.calls else None

    def completed(self) -> list[ChoiceOut]:
        """All choices, each finished."""
        return [
            ChoiceOut(
                index=index,
                message=choice.answer.message(),
                logprobs=choice.logprobs,
                finish_reason=choice.finish_reason or "stop",
            )
            for index, choice in enumerate(self._open)
        ]

    def _validate(self, text: str) -> None:
        """The last word: masks are not trusted, the finished answer is checked by a validator of its own."""
        constraint = self._constraint
        if constraint is None:
            return
        try:
            problem = validate(constraint, text)
        except Unjudged as exc:
            # Neither valid nor invalid; the response's headers have said so where that was known before.
            log.warning("no second reader for an answer under constraint %s: %s", digest(constraint), exc)
            return
        self.outcome.saw_validity(problem is None)
        if problem is None:
            return
        log.error(
            "an answer breaks its constraint %s (%s, held by %s): keyword %s",
            digest(constraint),
            self.job.asked.kind,
            self.outcome.backend,
            problem.keyword,
        )
        raise ApiError(500, "constraint_violated", f"The answer does not satisfy its constraint: {problem}")


def _is_complete(constraint: Constraint, event: Finished) -> bool:
    """Whether what is left before a stop string or token satisfies the constraint.

    The engine's own word is for all tokens, those of the stop among them.
    """
    try:
        return validate(constraint, event.text) is None
    except Unjudged:
        return event.is_complete


def digest(constraint: Constraint) -> str:
    """A short name of the constraint for logs, which never show what a client wrote."""
    return hashlib.blake2b(msgspec.json.encode(constraint), digest_size=8).hexdigest()
