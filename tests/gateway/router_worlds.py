"""Outcomes of a made-up world for the tests' pair: which model is right shows in the first number of the state."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from engine.loaded_model import fingerprint
from gateway.storage.identifiers import new_id
from gateway.storage.records import DecisionRecord, OutcomeRecord, Record
from router_model.artefact import RouterArtefact
from router_model.commands import train
from router_model.facts import RequestFacts
from router_model.features import FEATURE_SCHEMA_VERSION, extract
from router_model.outcomes import OutcomeRow, StateBlob, write_outcomes
from tests.gateway.server import HIDDEN, Checkpoints

STRENGTH = 6.0


def world(n: int, seed: int, *, strength: float = STRENGTH) -> list[OutcomeRow]:
    """n outcomes. strength: how clearly the state says whether the small model is right; 0 is not at all."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        is_hard = rng.random() < 0.5
        values = rng.normal(size=(2, 2, HIDDEN)).astype(np.float32)
        values[:, :, 0] += strength * is_hard
        rows.append(
            OutcomeRow(
                id=f"{seed}-{i}",
                prompt="Which way?",
                weak_score=float(rng.random() < (0.05 if is_hard else 0.95)),
                strong_score=float(rng.random() < 0.95),
                state=StateBlob.of(values),
                entropy=1.0,
                margin=1.0,
                small_tokens=10,
                large_tokens=10,
            )
        )
    return rows


def train_router(folder: Path, checkpoints: Checkpoints, rows: list[OutcomeRow]) -> Path:
    """A router for the pair, trained on these rows; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_outcomes(folder / "outcomes.jsonl", rows)
    small, large = fingerprint(checkpoints.small), fingerprint(checkpoints.large)
    out = folder / "router"
    train([folder / "outcomes.jsonl"], out, small_model=small, large_model=large, show=lambda _: None)
    return out


@dataclass(frozen=True, slots=True)
class Routers:
    """Folders. blind: trained where the state says nothing; seeing: where it says nearly all."""

    blind: Path
    seeing: Path

    def hash(self, name: str) -> str:
        return RouterArtefact.load(getattr(self, name)).hash


def train_routers(folder: Path, checkpoints: Checkpoints) -> Routers:
    """Both, of the pair."""
    return Routers(
        train_router(folder / "blind", checkpoints, world(200, 1, strength=0.0)),
        train_router(folder / "seeing", checkpoints, world(400, 2)),
    )


def foreign_router(routers: Routers, small_model: str = "0" * 64) -> RouterArtefact:
    """The seeing one, as if it had been trained for another small model."""
    found = RouterArtefact.load(routers.seeing)
    return replace(found, manifest=msgspec.structs.replace(found.manifest, small_model=small_model))


def logged(rows: list[OutcomeRow]) -> list[Record]:
    """The same as a gateway without keys would have recorded it, each a shadow pair."""
    records: list[Record] = []
    for row in rows:
        found = row.outcome()
        decision = DecisionRecord(
            id=new_id(),
            request_id=new_id(),
            session_hash=row.id,
            policy="state-router-2",
            features=extract(found.text, RequestFacts(prompt_tokens=11), found.state).pack(),
            features_version=str(FEATURE_SCHEMA_VERSION),
            eligible=["small", "large"],
            action="small",
            reason="score_below_threshold",
            propensity=0.95,
            model_served="small",
            prompt_tokens=11,
            completion_tokens=10,
        )
        records.append(decision)
        for model, score in (("small", found.weak_score), ("large", found.strong_score)):
            records.append(
                OutcomeRecord(
                    decision_id=decision.id,
                    model=model,
                    score=score,
                    source="command",
                    shadow=True,
                    keep_prob=0.5,
                    tokens=10,
                )
            )
    return records
