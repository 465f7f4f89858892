"""Both models on the same requests, graded: the outcomes that a deployment trains its own router on.

A request goes the way of the server (same reading, rendering, constraint, prefill), so the router is trained on exactly
what it will see. Answers are greedy unless the request says otherwise. What runs beside live traffic is in
`live_shadow`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.progress import Progress

from engine.client import EngineClient
from gateway.accounts.authenticator import Principal
from gateway.engine_host import start_engine
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.routing.grading import FormGrader, GradedAnswer, Grader, make_grader
from gateway.routing.model_answer import ModelAnswer, ask_model
from gateway.settings import Settings
from router_model.grading import Expected, GraderName
from router_model.outcomes import OutcomeRow, StateBlob, write_outcomes

_GRADERS = 4  # commands at the same time


class GradedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the input: a chat completion request and its right answer (see `router_model.grading`).

    expected is left out where nobody knows it: by a grader that compares, such a request is scored by whether the
    answer ended in order and satisfies its constraint. group: near duplicates share it, so that they never lie on both
    sides of a split. route: kind of traffic, for a calibration of its own.
    """

    id: str
    request: dict[str, Any]
    expected: Expected | msgspec.UnsetType = msgspec.UNSET
    group: str = ""
    subject: str = ""
    route: str = ""


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a file of requests. Scores are means over the rows; ungraded: requests without one, left out."""

    rows: int
    ungraded: int
    small_score: float
    large_score: float


def read_requests(path: Path) -> Iterator[GradedRequest]:
    """The requests of a JSON lines file. ValueError names file and line of the first that cannot be read."""
    decoder = msgspec.json.Decoder(GradedRequest)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


class Shadow:
    """Runs requests on both models. at_once: how many requests are in flight."""

    def __init__(self, engine: EngineClient, intake: Intake, grader: Grader, *, at_once: int = 16) -> None:
        self._engine, self._intake, self._grader, self._at_once = engine, intake, grader, at_once
        self._form = FormGrader()

    async def outcomes(
        self, requests: Iterable[GradedRequest], done: Callable[[int], None] = lambda _: None
    ) -> list[OutcomeRow]:
        """The rows, in the order of the requests, without those that could not be graded; `done` is told how many
        requests are ready.

        Raises ApiError for a request that the server would refuse and ValueError for one that only one model could
        answer, with its id in a note, and what the engine raises.
        """
        rows: list[OutcomeRow] = []
        n_done = 0
        async for row in self._in_order(requests):
            n_done += 1
            done(n_done)
            if row is not None:
                rows.append(row)
        return rows

    async def _in_order(self, requests: Iterable[GradedRequest]) -> AsyncIterator[OutcomeRow | None]:
        source, running = iter(requests), list[asyncio.Task[OutcomeRow | None]]()
        try:
            while True:
                while len(running) < self._at_once and (request := next(source, None)) is not None:
                    running.append(asyncio.create_task(self._outcome(request)))
                if not running:
                    return
                yield await running.pop(0)
        finally:
            for task in running:
                task.cancel()

    async def _outcome(self, graded: GradedRequest) -> OutcomeRow | None:
        try:
            body = msgspec.json.encode({"temperature": 0, **graded.request, "model": "auto", "stream": False, "n": 1})
            job = await self._intake.read(body, Principal(key_id=None, name="shadow"), Arrival())
            if len(job.eligibility.eligible) < 2:
                reasons = ", ".join(f"{alias}: {reason}" for alias, reason in job.eligibility.reasons.items())
                raise ValueError(f"only one of the models could answer it ({reasons}): leave it out")
            if (constraint := job.constraint("small")) is not None:
                await self._engine.compile("small", constraint)
            prepared = await self._engine.prepare(
                "small", job.prompts["small"], salt=job.salt, turn_start=job.turn_start
            )
            models = self._intake.catalogue
            small, large = await asyncio.gather(
                ask_model(self._engine, job, models["small"], handle=prepared.handle, with_logprobs=True),
                ask_model(self._engine, job, models["large"]),
            )
            grader = self._grader_of(graded)
            scores = [await self._score(grader, graded, answer) for answer in (small, large)]
        except Exception as error:
            error.add_note(f"request {graded.id}")
            raise
        if None in scores:
            return None
        state = np.frombuffer(prepared.state, np.dtype("<f4")).reshape(prepared.state_shape)
        return OutcomeRow(
            id=graded.id,
            prompt=job.text(),
            group=graded.group or graded.id,
            subject=graded.subject,
            route=graded.route,
            source=grader.name,
            weak_score=scores[0],
            strong_score=scores[1],
            facts=job.facts("small"),
            state=StateBlob.of(state),
            entropy=prepared.entropy,
            margin=prepared.margin,
            small_tokens=len(small.finished.token_ids),
            large_tokens=len(large.finished.token_ids),
            weak_response=small.finished.text,
            small_logprob_mean=small.logprob_mean,
            small_logprob_min=small.logprob_min,
            small_valid=small.ended if small.valid is None else small.valid,
        )

    def _grader_of(self, graded: GradedRequest) -> Grader:
        """By form, where the one asked for compares and there is nothing to compare with."""
        compares = self._grader.name != GraderName.COMMAND and graded.expected is msgspec.UNSET
        return self._form if compares else self._grader

    async def _score(self, grader: Grader, graded: GradedRequest, answer: ModelAnswer) -> float | None:
        return await grader.grade(
            GradedAnswer(
                request=graded.request,
                model=answer.model,
                text=answer.finished.text,
                ended=answer.ended,
                valid=answer.valid,
                expected=graded.expected,
            )
        )


async def generate_outcomes(
    settings: Settings, requests: Path, out: Path, grader_name: GraderName = GraderName.EXACT_MATCH
) -> Generated:
    """Run a file of requests on the pair of `settings` and write the outcomes.

    Raises ValueError for a file that cannot be read or a grader that cannot be used, and what Shadow.outcomes raises.
    """
    source = list(read_requests(requests))
    routing = settings.routing
    grader = make_grader(
        grader_name, command=routing.grader_command, timeout_s=routing.grader_timeout_s, at_once=_GRADERS
    )
    engine = await start_engine(settings)
    try:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), secrets.token_bytes(32))
        with Progress() as bar:
            task = bar.add_task("both models", total=len(source))
            rows = await Shadow(engine, intake, grader).outcomes(source, lambda done: bar.update(task, completed=done))
    finally:
        await engine.close()
    write_outcomes(out, rows)
    small, large = (
        float(np.mean([getattr(row, name) for row in rows])) if rows else 0.0 for name in ("weak_score", "strong_score")
    )
    return Generated(rows=len(rows), ungraded=len(source) - len(rows), small_score=small, large_score=large)
