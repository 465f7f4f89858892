"""Both models on the same requests, graded: the outcomes that a deployment trains its own router on.

A request goes the way of the server (same reading, rendering, constraint, prefill), so the router is trained on exactly
what it will see. Answers are greedy unless the request says otherwise.
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
from engine.messages import Finished, Prepared
from gateway.accounts.authenticator import Principal
from gateway.engine_host import start_engine
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival, Job
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.settings import Settings
from router_model.grading import exact_match
from router_model.outcomes import OutcomeRow, StateBlob, write_outcomes


class GradedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the input: a chat completion request and its right answer (see `router_model.grading.exact_match`).

    expected is left out where nobody knows it: such a request is scored by whether the answer ended in order.
    group: near duplicates share it, so that they never lie on both sides of a split.
    """

    id: str
    request: dict[str, Any]
    expected: list[dict[str, Any]] | dict[str, Any] | str | msgspec.UnsetType | None = msgspec.UNSET
    group: str = ""
    subject: str = ""


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

    def __init__(self, engine: EngineClient, intake: Intake, *, at_once: int = 16) -> None:
        self._engine, self._intake, self._at_once = engine, intake, at_once

    async def outcomes(
        self, requests: Iterable[GradedRequest], done: Callable[[int], None] = lambda _: None
    ) -> list[OutcomeRow]:
        """The rows, in the order of the requests; `done` is told how many are ready.

        Raises ApiError for a request that the server would refuse, with its id in a note, and what the engine raises.
        """
        rows: list[OutcomeRow] = []
        async for row in self._in_order(requests):
            rows.append(row)
            done(len(rows))
        return rows

    async def _in_order(self, requests: Iterable[GradedRequest]) -> AsyncIterator[OutcomeRow]:
        source, running = iter(requests), list[asyncio.Task[OutcomeRow]]()
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

    async def _outcome(self, graded: GradedRequest) -> OutcomeRow:
        try:
            body = msgspec.json.encode({"temperature": 0, **graded.request, "model": "auto", "stream": False, "n": 1})
            job = await self._intake.read(body, Principal(key_id=None, name="shadow"), Arrival())
            if (constraint := job.constraint("small")) is not None:
                await self._engine.compile("small", constraint)
            prepared = await self._engine.prepare("small", job.prompts["small"], salt=job.salt)
            small, large = await asyncio.gather(self._answer(job, "small", prepared), self._answer(job, "large", None))
        except Exception as error:
            error.add_note(f"request {graded.id}")
            raise
        state = np.frombuffer(prepared.state, np.dtype("<f4")).reshape(prepared.state_shape)
        return OutcomeRow(
            id=graded.id,
            prompt=job.text(),
            group=graded.group or graded.id,
            subject=graded.subject,
            weak_score=_score(small, graded),
            strong_score=_score(large, graded),
            facts=job.facts("small"),
            state=StateBlob.of(state),
            entropy=prepared.entropy,
            margin=prepared.margin,
            small_tokens=len(small.token_ids),
            large_tokens=len(large.token_ids),
        )

    async def _answer(self, job: Job, alias: str, prepared: Prepared | None) -> Finished:
        model = self._intake.catalogue[alias]
        async for event in self._engine.submit(
            alias,
            job.params(model)[0],
            tokens=job.prompts[alias] if prepared is None else None,
            handle=None if prepared is None else prepared.handle,
            constraint=job.constraint(alias),
            salt=job.salt,
        ):
            if isinstance(event, Finished):
                return event
        raise RuntimeError("the engine ended a stream without its last event")


async def generate_outcomes(settings: Settings, requests: Path, out: Path) -> tuple[int, float, float]:
    """Run a file of requests on the pair of `settings`, write the outcomes; returns their number and the mean scores.

    Raises ValueError for a file that cannot be read, and what Shadow.outcomes raises.
    """
    source = list(read_requests(requests))
    engine = await start_engine(settings)
    try:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), secrets.token_bytes(32))
        with Progress() as bar:
            task = bar.add_task("both models", total=len(source))
            rows = await Shadow(engine, intake).outcomes(source, lambda done: bar.update(task, completed=done))
    finally:
        await engine.close()
    write_outcomes(out, rows)
    weak, strong = (
        np.mean([getattr(r, name) for r in rows]) if rows else 0.0 for name in ("weak_score", "strong_score")
    )
    return len(rows), float(weak), float(strong)


def _score(answer: Finished, graded: GradedRequest) -> float:
    if graded.expected is msgspec.UNSET:
        return float(answer.reason == "stop" and answer.is_complete)
    return float(exact_match(answer.text, graded.expected))
