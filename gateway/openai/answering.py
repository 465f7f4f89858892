"""What a client is told of a run: the answers as they grow, or the large model's in place of what the small one said.

Where the small model's answer has a second chance, what it says is held back until it was judged; nothing of an answer
that was given up ever leaves. Once text has left, no other answer does.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from engine.messages import Delta, Finished
from engine.request import EngineDied, EngineError
from gateway.openai.choices import Choices, Progress
from gateway.openai.errors import ApiError
from gateway.openai.job import Job
from gateway.openai.prediction import answered_before
from gateway.openai.prompt import Prompter
from gateway.openai.run import Attempt, Piece, Run
from gateway.prices import PriceTable, Work, WorkKind
from gateway.routing.cascade import PARTIAL, Chance, EscalateReason, NotEscalated
from grammars.errors import CompileTimeout, ConstraintRefused
from router_model.cascade import Answer

_FAILED = (ApiError, EngineError, ConstraintRefused, CompileTimeout)


@dataclass(slots=True)
class _Held:
    """What the small model said and nobody has seen. error: it cannot be sent, since it breaks its constraint."""

    progress: list[Progress] = field(default_factory=list)
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    reason: str = PARTIAL
    is_complete: bool = True
    error: ApiError | None = None

    def take(self, piece: Piece, choices: Choices) -> None:
        """Hold an event back. Raises ApiError for an answer that ended out of order."""
        event = piece.event
        if isinstance(event, Delta):
            self.text += event.text
            self.token_ids += event.token_ids
        try:
            self.progress.append(progress := choices.take(piece))
        except ApiError as error:
            if error.detail.code != "constraint_violated":
                raise
            self.error, self.reason = error, "stop"
            return
        if isinstance(event, Finished):
            self.text, self.token_ids = event.text, event.token_ids
            self.reason = "length" if progress.finish_reason == "length" else "stop"


class Answering:
    """Read `progress` to its end; then `choices` are those of the model that answered."""

    def __init__(
        self, run: Run, job: Job, prompters: Mapping[str, Prompter], prices: PriceTable, *, uses_predictions: bool
    ) -> None:
        """run: one that has been started. uses_predictions: the engine drafts from them."""
        self._run, self._job, self._prompters, self._prices = run, job, prompters, prices
        self._uses_predictions = uses_predictions
        self.choices = self._choices(run.attempt)

    async def progress(self) -> AsyncGenerator[Progress, None]:
        """What each event adds to the answers.

        Raises what the engine raises, and ApiError for an answer that breaks its constraint or ended out of order.
        """
        pieces = self._run.attempt.generation.pieces()
        chance = self._run.chance
        if chance is not None:
            small = await self._held(chance, pieces)
            reason = self._verdict(chance, small)
            if reason is not None:
                async for progress in self._second(chance, small, reason):
                    yield progress
                if self._run.attempt.outcome.escalated:
                    return
            for progress in small.progress:
                yield progress
        async for piece in pieces:
            yield self.choices.take(piece)

    async def _held(self, chance: Chance, pieces: AsyncGenerator[Piece, None]) -> _Held:
        """The small answer, as far as it is held back."""
        small = _Held()
        async for piece in pieces:
            small.take(piece, self.choices)
            if chance.hold_tokens is not None and len(small.token_ids) >= chance.hold_tokens:
                break
        return small

    def _verdict(self, chance: Chance, small: _Held) -> EscalateReason | None:
        """Why the small answer will not do; None where it will, or where nobody can say."""
        if small.reason == PARTIAL and not chance.hold_tokens:
            return None
        outcome = self._run.attempt.outcome
        is_cut = small.reason == "length" and self._job.constraint(outcome.model) is not None
        answer = Answer(
            text=small.text,
            n_tokens=len(small.token_ids),
            logprob_mean=outcome.logprob_mean,
            logprob_min=outcome.logprob_min,
            reason=small.reason,
            is_valid=False if is_cut else outcome.valid,
        )
        failure = chance.failure(answer, self.choices.free_text(0))
        if failure is not None or chance.judge is None or small.reason == "length":
            return failure
        found = chance.judge(answer)
        outcome.p_right = found.p_right
        return found.reason

    async def _second(self, chance: Chance, small: _Held, reason: EscalateReason) -> AsyncGenerator[Progress, None]:
        """The large model's answer in place of the small one's, or nothing where that has to be sent after all.

        Whole answers are told once they are complete, so until then the small one can be sent in their place. Raises
        what the engine raises where there is nothing to be sent in its place.
        """
        run, first = self._run, self.choices
        if not self._is_allowed(chance, small):
            run.fall_back(NotEscalated.LIMITED)
            if small.error is not None:
                raise small.error
            return
        told, is_told = list[Progress](), False
        try:
            second = await run.try_large(self._prediction(small))
            choices = self._choices(second)
            async for piece in second.generation.pieces():
                progress = choices.take(piece)
                if not second.outcome.escalated:
                    run.take_over(second, reason)
                    self.choices = choices
                if chance.hold_tokens is None:
                    told.append(progress)
                else:
                    is_told = True
                    yield progress
        except _FAILED as exc:
            if is_told or small.error is not None or isinstance(exc, EngineDied):
                raise
            run.fall_back(NotEscalated.REFUSED)
            self.choices = first
            return
        for progress in told:
            yield progress

    def _is_allowed(self, chance: Chance, small: _Held) -> bool:
        """Whether the request's limits allow a second answer."""
        attempt, job = self._run.attempt, self._job
        decision = attempt.outcome.decision
        large_usd = decision.expected_cost_usd.get("large")
        if large_usd is None:
            n_tokens = max(len(small.token_ids), round(chance.large_tokens or 0.0))
            work = Work(
                model="large", kind=WorkKind.ANSWER, input_tokens=len(job.prompts["large"]), output_tokens=n_tokens
            )
            large_usd = self._prices.cost_usd(work)
        began_s, now_s = attempt.generated_s
        return chance.allows(
            spent_usd=attempt.outcome.cost(self._prices).total_usd,
            large_usd=large_usd,
            elapsed_s=job.arrival.elapsed_s(),
            wait_s=self._run.wait_s("large") or 0.0,
            took_s=now_s - began_s,
            remaining_s=job.remaining_s(),
        )

    def _prediction(self, small: _Held) -> list[int]:
        """What the large model is expected to say: the small one's answer, else the client's own prediction."""
        if not self._uses_predictions:
            return []
        small_prompter, large_prompter = self._prompters["small"], self._prompters["large"]
        if self._job.asked.tools.callable and small_prompter.dialect != large_prompter.dialect:
            found = list[int]()  # the same call is written in another way
        else:
            ids = small.token_ids if self._run.shares_vocabulary else None
            found = answered_before(small.text, ids, small_prompter, large_prompter)
        return found or list(self._job.predictions.get("large", ()))

    def _choices(self, attempt: Attempt) -> Choices:
        prompter = self._prompters[attempt.model.alias]
        return Choices(self._job, prompter.tokenizer, prompter.dialect, attempt.outcome)
