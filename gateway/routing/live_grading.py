"""Grades of ordinary answers: now and then the operator's grader judges what a client got.

    answered -> offer: drawn with probability `share`? -> queue -> grader -> an outcome row of the decision

No client waits for it, and the engine has nothing to do with it. Requests and answers are held in memory until they are
graded, and never stored.
"""

import asyncio
import logging
from dataclasses import dataclass

import msgspec
import numpy as np

from gateway.openai.job import Job
from gateway.routing.draw import NEVER, Draw, may_learn_from
from gateway.routing.grade_book import GradeBook, Origin, Prediction
from gateway.routing.grading import GradedAnswer, Grader
from gateway.routing.model_answer import ModelAnswer
from gateway.routing.outcome import Outcome
from gateway.storage.decisions import Served
from gateway.storage.records import OutcomeRecord

log = logging.getLogger(__name__)

MAX_WAITING = 64


class GradingCounts(msgspec.Struct, kw_only=True):
    """Since start. drawn: answers that were to be graded; done: that were; failed: that the grader gave no score for,
    or broke on; dropped: too many waited.
    """

    drawn: int = 0
    done: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Drawn:
    job: Job
    outcome: Outcome
    keep_prob: float


class LiveGrading:
    """`start`, then `offer` every finished request; `close` cancels what runs. Use from one event loop."""

    def __init__(
        self, grader: Grader, book: GradeBook, rng: np.random.Generator, *, share: float = 0.0, at_once: int = 2
    ) -> None:
        """share: probability that a routed answer is graded; at_once: most answers that are graded at the same time."""
        self._grader, self._book, self._rng = grader, book, rng
        self._share, self._at_once = share, at_once
        self._waiting: asyncio.Queue[_Drawn] = asyncio.Queue(MAX_WAITING)
        self._workers: list[asyncio.Task[None]] = []
        self.counts = GradingCounts()

    def start(self) -> None:
        """Begin."""
        n_workers = self._at_once if self._share > 0 else 0
        self._workers = [asyncio.create_task(self._work(), name="live-grading") for _ in range(n_workers)]

    def offer(self, job: Job, outcome: Outcome, compared: Draw = NEVER) -> None:
        """A request was answered in order: perhaps grade the answer. Never raises, and takes no time.

        compared: whether it was drawn for a shadow pair, which grades this answer, too, so that it isn't done twice.
        """
        if not may_learn_from(job, outcome) or compared.is_drawn or not Draw.by_chance(self._share, self._rng).is_drawn:
            return
        self.counts.drawn += 1
        try:
            self._waiting.put_nowait(_Drawn(job, outcome, self._share * (1 - compared.probability)))
        except asyncio.QueueFull:
            self.counts.dropped += 1

    async def close(self) -> None:
        """Cancel everything; what waits is dropped."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            drawn = await self._waiting.get()
            try:
                is_graded = await self._grade(drawn)
            except Exception:  # this task must outlive whatever goes wrong with one answer
                log.exception("an answer could not be graded")
                is_graded = False
            self.counts.done += is_graded
            self.counts.failed += not is_graded

    async def _grade(self, drawn: _Drawn) -> bool:
        """Whether the answer has a grade now."""
        outcome = drawn.outcome
        answer = ModelAnswer.of(outcome, drawn.job)
        score = None if answer is None else await self._grader.grade(GradedAnswer.of(drawn.job.request, answer))
        if score is None:
            return False
        record = OutcomeRecord(
            decision_id=outcome.decision.id,
            key_id=drawn.job.principal.key_id,
            model=outcome.model,
            score=score,
            source=self._grader.name,
            keep_prob=drawn.keep_prob,
        )
        served = _served(drawn.job, outcome)
        self._book.put(record, Origin.LIVE, Prediction.of(served.artefact_hash, served.predicted(outcome.model)))
        return True


def _served(job: Job, outcome: Outcome) -> Served:
    decision = outcome.decision
    return Served(
        job.principal.key_id,
        outcome.model,
        decision.artefact_hash,
        outcome.escalated,
        decision.p_small,
        decision.p_large,
        outcome.p_right,
    )
