"""An engine with what a gateway has around it, for what runs beside live traffic."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.client import EngineClient
from engine.config import EngineConfig
from engine.pair_config import PairConfig
from gateway.accounts.authenticator import Principal
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival, Job
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.routing.decision import Decision, Reason
from gateway.routing.load import Load
from gateway.routing.model_answer import ask_model
from gateway.routing.outcome import Outcome
from gateway.settings import Settings
from gateway.storage.identifiers import new_id
from gateway.storage.protocols import Recorder
from gateway.storage.records import OutcomeRecord, Record
from tests.engine.checkpoints import build_checkpoint

KEY = new_id()


class Kept(Recorder):
    """Rows in a list."""

    def __init__(self) -> None:
        self.rows: list[OutcomeRecord] = []

    def put(self, record: Record) -> None:
        """Keep it."""
        assert isinstance(record, OutcomeRecord)
        self.rows.append(record)


class World:
    """kept: the rows that were written."""

    def __init__(self, engine: EngineClient, folder: Path) -> None:
        self.engine, self.catalogue = engine, Catalogue(engine.info())
        settings = Settings(data_dir=folder)
        self.intake = Intake(settings, self.catalogue, prompters(self.catalogue, settings.dialects), b"salt")
        self.load = Load(self.catalogue.models, overload_wait_s=2.0)
        self.kept = Kept()

    async def job(self, **fields: Any) -> Job:
        """A routed request that was read, with these fields."""
        body = {"model": "auto", "messages": [{"role": "user", "content": "Which way?"}], "max_tokens": 6, **fields}
        return await self.intake.read(json.dumps(body).encode(), Principal(KEY, "tests"), Arrival())

    async def answered(self, job: Job, model: str = "small", reason: str = Reason.NO_ROUTER) -> Outcome:
        """What came of the job on that model, as a request's end leaves it."""
        if (constraint := job.constraint(model)) is not None:
            await self.engine.compile(model, constraint)
        answer = await ask_model(self.engine, job, self.catalogue[model])
        decision = Decision(model=model, reason=reason, policy="rule-1", eligible=job.eligibility.eligible)
        outcome = Outcome(decision=decision, prompt_tokens=len(job.prompts[model]))
        outcome.saw_tokens(0, len(answer.finished.token_ids))
        outcome.saw_end(0, answer.finished)
        return outcome


@pytest.fixture(scope="session")
def live_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two tiny checkpoints."""
    folder = tmp_path_factory.mktemp("live-pair")
    for seed, name in enumerate(("small", "large")):
        build_checkpoint(folder / name, "llama", seed=seed, max_position_embeddings=2048)
    models = {name: EngineConfig(path=folder / name, dtype="float32") for name in ("small", "large")}
    return PairConfig(models, torch_threads=1)


@pytest.fixture
async def world(live_pair: PairConfig, tmp_path: Path) -> AsyncIterator[World]:
    """The engine running."""
    async with EngineClient.in_process(live_pair) as engine:
        yield World(engine, tmp_path)
