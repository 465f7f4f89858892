"""Both models on the same requests, graded: the outcomes that a deployment trains its own router on.

A request goes the way of the server (same reading, rendering, constraint, prefill), so the router is trained on exactly
what it will see. Answers are greedy unless the request says otherwise. What runs beside live traffic is in
`live_shadow`.
"""

import asyncio
import codecs
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.progress import Progress

from engine.client import EngineClient
from gateway.accounts.authenticator import Principal
from gateway.engine_host import start_engine
from gateway.openai.errors import from_exception
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.routing.grading import FormGrader, GradedAnswer, Grader, make_grader
from gateway.routing.model_answer import ModelAnswer, ask_model
from gateway.routing.unfinished_outcomes import UnfinishedOutcomes, check_writable
from gateway.settings import Settings
from grammars.errors import CompileTimeout
from router_model.grading import Expected, GraderName
from router_model.outcomes import OutcomeRow, StateBlob

NAMED = 20
"""Skipped requests that are named; the others are counted."""

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


class NoOutcome(msgspec.Struct, frozen=True):
    """A request that gave no outcome. why: it could not be answered by both models; None: no grader gave a score."""

    id: str
    why: str | None = None


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a file of requests. Scores are means over the rows.

    taken_up: rows that an earlier, unfinished run had made. ungraded: requests whose answers got no score, left out.
    skipped: requests that could not be answered by both models, left out; the first of them with the reasons.
    """

    rows: int
    taken_up: int
    ungraded: int
    skipped: int
    first_skipped: tuple[NoOutcome, ...]
    small_score: float
    large_score: float


def read_requests(path: Path) -> Iterator[GradedRequest]:
    """The requests of a JSON lines file. ValueError names file and line of the first that cannot be read."""
    decoder = msgspec.json.Decoder(GradedRequest)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
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

    async def outcomes(self, requests: Iterable[GradedRequest], take: Callable[[OutcomeRow | NoOutcome], None]) -> None:
        """Give `take` what came of each request, in their order, no more than `at_once` of them in memory.

        Raises what the engine raises where that is no fault of a request, the request's id in a note; what was ready by
        then has been taken.
        """
        source, running = iter(requests), list[asyncio.Task[OutcomeRow | NoOutcome]]()
        try:
            while True:
                while len(running) < self._at_once and (request := next(source, None)) is not None:
                    running.append(asyncio.create_task(self._outcome(request)))
                if not running:
                    return
                found = await running[0]
                running.pop(0)
                take(found)
        finally:
            ready = [task for task in running if task.done() and not task.cancelled() and task.exception() is None]
            for task in running:
                task.cancel()
            for task in ready:
                take(task.result())

    async def _outcome(self, graded: GradedRequest) -> OutcomeRow | NoOutcome:
        try:
            return await self._answered(graded)
        except Exception as error:
            if _is_own_fault(error):
                return NoOutcome(graded.id, str(error))
            error.add_note(f"request {graded.id}")
            raise

    async def _answered(self, graded: GradedRequest) -> OutcomeRow | NoOutcome:
        """Raises ApiError for a request that the server would refuse and ValueError for one that only one model could
        answer, and what the engine raises.
        """
        body = msgspec.json.encode({"temperature": 0, **graded.request, "model": "auto", "stream": False, "n": 1})
        job = await self._intake.read(body, Principal(key_id=None, name="shadow"), Arrival())
        if len(job.eligibility.eligible) < 2:
            reasons = ", ".join(f"{alias}: {reason}" for alias, reason in job.eligibility.reasons.items())
            raise ValueError(f"only one of the models could answer it ({reasons})")
        if (constraint := job.constraint("small")) is not None:
            await self._engine.compile("small", constraint)
        prepared = await self._engine.prepare("small", job.prompts["small"], salt=job.salt, turn_start=job.turn_start)
        models = self._intake.catalogue
        small, large = await asyncio.gather(
            ask_model(self._engine, job, models["small"], handle=prepared.handle, with_logprobs=True),
            ask_model(self._engine, job, models["large"]),
        )
        grader = self._grader_of(graded)
        scores = [await self._score(grader, graded, answer) for answer in (small, large)]
        if None in scores:
            return NoOutcome(graded.id)
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
        return await grader.grade(GradedAnswer.of(graded.request, answer, graded.expected))


async def generate_outcomes(
    settings: Settings, requests: Path, out: Path, grader_name: GraderName = GraderName.EXACT_MATCH
) -> Generated:
    """Run a file of requests on the pair of `settings` and write the outcomes.

    Each is on the disk, beside `out`, as soon as it is made. A run that ends early leaves them there, and the next one
    of the same file, pair and grader goes on from them, by id; only then they become `out`.

    Raises ValueError for a file that cannot be read, a grader that cannot be used or requests none of which can be
    answered, OSError where `out` cannot be written, and what Shadow.outcomes raises.
    """
    total = sum(1 for _ in read_requests(requests))  # all of it is read before the models are: a bad line costs nothing
    check_writable(out)
    routing = settings.routing
    grader = make_grader(
        grader_name, command=routing.grader_command, timeout_s=routing.grader_timeout_s, at_once=_GRADERS
    )
    engine = await start_engine(settings)
    try:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), secrets.token_bytes(32))
        shadow = Shadow(engine, intake, grader)
        with UnfinishedOutcomes(out, _key(requests, catalogue, grader_name, routing.grader_command)) as kept:
            try:
                return await _generate(shadow, requests, total, kept)
            except Exception as error:
                if kept.n:
                    error.add_note(f"{kept.n} outcomes are kept in {kept.path}: the same command goes on from there")
                raise
    finally:
        await engine.close()


async def _generate(shadow: Shadow, requests: Path, total: int, kept: UnfinishedOutcomes) -> Generated:
    taken_up, done_before = kept.n, frozenset(kept.ids)
    ungraded = n_skipped = 0
    first_skipped: list[NoOutcome] = []
    with Progress() as bar:
        task = bar.add_task("both models", total=total, completed=taken_up)

        def take(found: OutcomeRow | NoOutcome) -> None:
            nonlocal ungraded, n_skipped
            if isinstance(found, OutcomeRow):
                kept.add(found)
            elif found.why is None:
                ungraded += 1
            else:
                n_skipped += 1
                if len(first_skipped) < NAMED:
                    first_skipped.append(found)
            bar.advance(task)

        await shadow.outcomes((one for one in read_requests(requests) if one.id not in done_before), take)
    if n_skipped and not kept.n:
        why = "; ".join(f"request {one.id}: {one.why}" for one in first_skipped)
        raise ValueError(f"none of the requests gave an outcome: {why}")
    kept.finish()
    n = max(kept.n, 1)
    return Generated(
        rows=kept.n,
        taken_up=taken_up,
        ungraded=ungraded,
        skipped=n_skipped,
        first_skipped=tuple(first_skipped),
        small_score=kept.small_sum / n,
        large_score=kept.large_sum / n,
    )


def _key(requests: Path, catalogue: Catalogue, grader: GraderName, command: str | None) -> str:
    """Names what outcomes are of: those of other files, models or graders are never mixed."""
    parts = [str(requests.resolve())]
    parts += [catalogue[alias].info.fingerprint for alias in ("small", "large")]
    parts += [grader.value, command or "" if grader is GraderName.COMMAND else ""]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _is_own_fault(error: Exception) -> bool:
    """Whether it is the request that cannot be answered or graded, and others can: by what the server would say."""
    return isinstance(error, ValueError | CompileTimeout) or from_exception(error).status in range(400, 429)
