"""One model's whole answer to a request, as nobody's client sees it: for comparing the two models."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from engine.client import EngineClient
from engine.messages import Delta, Finished
from engine.request import FinishReason
from gateway.openai.job import Job
from gateway.routing.catalogue import ServedModel
from gateway.routing.outcome import Outcome
from grammars.constraint import Constraint
from grammars.validation import Unjudged, validate


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """model: its alias. valid: the answer satisfies its constraint; None where there is none, or nothing can judge it.

    logprob_mean, logprob_min: over the answer's tokens, None where they were not asked for.
    """

    model: str
    finished: Finished
    valid: bool | None
    logprob_mean: float | None = None
    logprob_min: float | None = None

    @property
    def ended(self) -> bool:
        """Whether it is whole: neither cut off nor cancelled."""
        return self.finished.reason is FinishReason.STOP and self.finished.is_complete

    @classmethod
    def of(cls, outcome: Outcome, job: Job) -> "ModelAnswer | None":
        """The first answer of an outcome; None where it never finished."""
        finished = outcome.finished.get(0)
        if finished is None or finished.reason not in {FinishReason.STOP, FinishReason.LENGTH}:
            return None
        return cls(
            model=outcome.model,
            finished=finished,
            valid=is_valid(job.constraint(outcome.model), finished) if outcome.valid is None else outcome.valid,
            logprob_mean=outcome.logprob_mean,
            logprob_min=outcome.logprob_min,
        )


async def ask_model(
    engine: EngineClient,
    job: Job,
    model: ServedModel,
    *,
    handle: str | None = None,
    priority: int = 0,
    with_logprobs: bool = False,
    count: Callable[[int], None] = lambda _: None,
) -> ModelAnswer:
    """The model's answer to the job, its first choice. handle: of its prepared prompt, which is used up.

    priority: higher runs first. count: told of every few new tokens, for what is cancelled before its end.
    Raises what the engine raises; cancelling it frees what the engine holds for it.
    """
    params = job.params(model)[0]
    if with_logprobs and params.logprobs is None:
        params = msgspec.structs.replace(params, logprobs=0)
    constraint = job.constraint(model.alias)
    logprobs: list[float] = []
    stream = engine.submit(
        model.alias,
        params,
        tokens=job.prompts[model.alias] if handle is None else None,
        handle=handle,
        constraint=constraint,
        priority=priority,
        salt=job.salt,
    )
    async with contextlib.aclosing(stream) as events:
        async for event in events:
            if isinstance(event, Delta):
                count(len(event.token_ids))
                logprobs += [entry.logprob for entry in event.logprobs or ()]
                continue
            return ModelAnswer(
                model=model.alias,
                finished=event,
                valid=is_valid(constraint, event),
                logprob_mean=sum(logprobs) / len(logprobs) if logprobs else None,
                logprob_min=min(logprobs, default=None),
            )
    raise RuntimeError("the engine ended a stream without its last event")


def is_valid(constraint: Constraint | None, finished: Finished) -> bool | None:
    """Whether a finished answer satisfies its constraint; None where there is none, or nothing can judge it."""
    if constraint is None:
        return None
    if finished.reason is not FinishReason.STOP:
        return False
    try:
        return validate(constraint, finished.text) is None
    except Unjudged:
        return None
