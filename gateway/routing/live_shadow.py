"""Shadow pairs from live traffic: now and then the model that was not chosen answers, too, and both are compared.

    answered -> offer: drawn with probability `share`? -> queue -> the engine is idle: the other model answers
                                                            ^                                   |
                                                            +---- a client came: cancelled, waits again
    both answers -> grader -> two outcome rows of the decision

Nobody waits for a shadow answer and nobody pays for it: it runs while no client's request is on the engine, below every
client's priority, and is cancelled when one comes. Prompts and answers are held in memory until then, and never stored.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec
import numpy as np

from engine.client import EngineClient
from engine.request import EngineError
from gateway.openai.job import Job
from gateway.prices import PriceTable, Work, WorkKind
from gateway.routing.catalogue import Catalogue
from gateway.routing.draw import NEVER, Draw, may_learn_from
from gateway.routing.grade_book import GradeBook, Origin, Prediction
from gateway.routing.grading import GradedAnswer, Grader
from gateway.routing.load import Load
from gateway.routing.model_answer import ModelAnswer, ask_model
from gateway.routing.outcome import Outcome
from gateway.storage.records import OutcomeRecord
from grammars.errors import CompileTimeout, ConstraintRefused

log = logging.getLogger(__name__)

# Clients' priorities lie within 200 of 0; the scheduler turns a level into a quarter of a second of waiting.
_PRIORITY = -1_000_000
_POLL_S = 0.02
_MAX_WAITING, _MAX_ATTEMPTS, _MAX_AGE_S = 64, 5, 1800.0


class ShadowCounts(msgspec.Struct, kw_only=True):
    """Since start. drawn: requests that were to be compared; answered: that were; ungraded: of these, where the grader
    gave no score for one of the answers. dropped: too many waited; abandoned: the engine was never idle for long
    enough; failed: an answer could not be made. gave_way: runs that were cancelled for a client. cost_usd: of all that
    was computed, at the list price; it is in no client's bill.
    """

    drawn: int = 0
    answered: int = 0
    ungraded: int = 0
    dropped: int = 0
    abandoned: int = 0
    failed: int = 0
    gave_way: int = 0
    cost_usd: float = 0.0


@dataclass(slots=True, eq=False)
class _Pair:
    """One request to compare. answers: those that its client has paid for, then the one made here. other: alias of the
    model that has not answered, None where both have.
    """

    job: Job
    outcome: Outcome
    answers: list[ModelAnswer]
    other: str | None
    keep_prob: float
    billed: frozenset[str]
    drawn_s: float = field(default_factory=time.monotonic)
    attempts: int = 0
    tokens: int = 0


class LiveShadow:
    """`start`, then `offer` every finished request; `close` cancels what runs. Use from one event loop."""

    def __init__(
        self,
        engine: EngineClient,
        catalogue: Catalogue,
        load: Load,
        book: GradeBook,
        grader: Grader,
        prices: PriceTable,
        rng: np.random.Generator,
        *,
        share: float = 0.0,
        at_once: int = 2,
    ) -> None:
        """share: probability that a routed request is compared; at_once: most comparisons at the same time."""
        self._engine, self._catalogue, self._load, self._book = engine, catalogue, load, book
        self._grader, self._prices, self._rng = grader, prices, rng
        self.share, self.at_once = share, at_once
        self._waiting: deque[_Pair] = deque()
        self._running: dict[_Pair, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.counts = ShadowCounts()

    @property
    def grader_name(self) -> str:
        """What grades: the source of the rows."""
        return self._grader.name

    @property
    def n_waiting(self) -> int:
        """Requests that wait for the engine to be idle."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Comparisons that run now."""
        return len(self._running)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="live-shadow")

    def configure(self, *, share: float | None = None, at_once: int | None = None) -> None:
        """Change what is not None. A share of 0 draws no more, and drops what waits or runs."""
        self.share = self.share if share is None else share
        self.at_once = self.at_once if at_once is None else at_once
        if self.share == 0:
            self.counts.dropped += len(self._waiting) + len(self._running)
            self._waiting.clear()
            for task in self._running.values():
                task.cancel()

    def offer(self, job: Job, outcome: Outcome) -> Draw:
        """A request was answered in order: perhaps compare. Never raises, and takes no time.

        Returns whether it was drawn; then its answer is graded here, or nowhere.
        """
        if len(job.eligibility.eligible) < 2 or not may_learn_from(job, outcome):
            return NEVER
        draw = Draw.by_chance(self.share, self._rng)
        if draw.is_drawn:
            self._take(job, outcome)
        return draw

    def _take(self, job: Job, outcome: Outcome) -> None:
        self.counts.drawn += 1
        if len(self._waiting) >= _MAX_WAITING:
            self.counts.dropped += 1
            return
        # An answer that the cascade discarded is the other model's already.
        candidates = [ModelAnswer.of(one, job) for one in (outcome, *outcome.others)]
        answers = list({one.model: one for one in candidates if one is not None}.values())
        if outcome.model not in {answer.model for answer in answers}:
            self.counts.failed += 1
            return
        other = next((alias for alias in job.eligibility.eligible if alias not in {one.model for one in answers}), None)
        billed = frozenset(answer.model for answer in answers)
        self._waiting.append(_Pair(job, outcome, answers, other, self.share, billed))
        self._wake.set()

    async def close(self) -> None:
        """Cancel everything; what waits is dropped."""
        tasks = [*self._running.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            while self._waiting or self._running:
                try:
                    self._step()
                except Exception:  # this task must outlive whatever goes wrong with one request
                    log.exception("a shadow run could not be started")
                await asyncio.sleep(_POLL_S)
            self._wake.clear()

    def _step(self) -> None:
        """Give way to clients, or else use the idle engine."""
        if not self._load.is_idle:
            for pair, task in self._running.items():
                if pair.other is not None:
                    task.cancel()
            return
        while self._waiting and len(self._running) < self.at_once:
            pair = self._waiting.popleft()
            if pair.attempts >= _MAX_ATTEMPTS or time.monotonic() - pair.drawn_s > _MAX_AGE_S:
                self.counts.abandoned += 1
                continue
            pair.attempts += 1
            self._running[pair] = task = asyncio.create_task(self._compare(pair), name="shadow-pair")
            # Not in `_compare`: what is cancelled before it began runs none of its lines.
            task.add_done_callback(lambda _, pair=pair: self._running.pop(pair, None))  # type: ignore[misc]

    async def _compare(self, pair: _Pair) -> None:
        """Have the other model answer, grade both, record. What is cancelled waits again."""
        pair.tokens = 0
        try:
            if pair.other is not None:
                pair.answers.append(await self._answer(pair, pair.other))
                pair.other = None
            await self._grade(pair)
            self.counts.answered += 1
        except asyncio.CancelledError:
            if self.share > 0:
                self.counts.gave_way += 1
                self._waiting.append(pair)
            raise
        except (EngineError, ConstraintRefused, CompileTimeout) as error:
            self.counts.failed += 1
            log.info("a shadow answer failed: %s", type(error).__name__)  # its text may quote the client's schema
        except Exception:
            self.counts.failed += 1
            log.exception("a shadow pair failed")

    async def _answer(self, pair: _Pair, alias: str) -> ModelAnswer:
        def count(n_tokens: int) -> None:
            pair.tokens += n_tokens

        job = pair.job
        if (constraint := job.constraint(alias)) is not None:
            await self._engine.compile(alias, constraint)
        try:
            answer = await ask_model(
                self._engine,
                job,
                self._catalogue[alias],
                priority=_PRIORITY,
                with_logprobs=alias == "small",
                count=count,
            )
        except BaseException:
            # What of the prompt had been computed is not known here: the whole of it, at most.
            self.counts.cost_usd += self._cost_usd(job, alias, pair.tokens, 0)
            raise
        self.counts.cost_usd += self._answer_usd(job, answer)
        return answer

    async def _grade(self, pair: _Pair) -> None:
        request = pair.job.request
        scores = await asyncio.gather(
            *(self._grader.grade(GradedAnswer.of(request, answer)) for answer in pair.answers)
        )
        self.counts.ungraded += any(score is None for score in scores)
        decision = pair.outcome.decision
        for answer, score in zip(pair.answers, scores, strict=True):
            # Chance chose the request, so both answers are samples of what was predicted.
            p = decision.p_small if answer.model == "small" else decision.p_large
            self._book.put(self._record(pair, answer, score), Origin.SHADOW, Prediction.of(decision.artefact_hash, p))

    def _record(self, pair: _Pair, answer: ModelAnswer, score: float | None) -> OutcomeRecord:
        return OutcomeRecord(
            decision_id=pair.outcome.decision.id,
            key_id=pair.job.principal.key_id,
            model=answer.model,
            score=score,
            source=self._grader.name,
            shadow=True,
            keep_prob=pair.keep_prob,
            tokens=len(answer.finished.token_ids),
            cost_usd=0.0 if answer.model in pair.billed else self._answer_usd(pair.job, answer),
            logprob_mean=answer.logprob_mean,
            logprob_min=answer.logprob_min,
            valid=answer.valid,
        )

    def _answer_usd(self, job: Job, answer: ModelAnswer) -> float:
        finished = answer.finished
        return self._cost_usd(job, answer.model, len(finished.token_ids), finished.timeline.cached_tokens)

    def _cost_usd(self, job: Job, alias: str, tokens: int, cached_tokens: int) -> float:
        prompt = len(job.prompts[alias])
        return self._prices.cost_usd(
            Work(
                model=alias,
                kind=WorkKind.ANSWER,
                input_tokens=prompt - cached_tokens,
                cached_tokens=cached_tokens,
                output_tokens=tokens,
            )
        )
