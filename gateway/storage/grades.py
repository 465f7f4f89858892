"""What is known of the answers to each decision: the last word of every source on them, and the one that counts."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, func, select

from gateway.storage.database import Database
from gateway.storage.models import DecisionRow, OutcomeRow
from router_model.grading import GraderName

_OUTCOMES, _DECISIONS = OutcomeRow.__table__.c, DecisionRow.__table__.c


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of an answer; the fields are those of `OutcomeRecord`."""

    score: float | None
    feedback: int | None
    source: str
    weight: float
    shadow: bool
    keep_prob: float
    tokens: int | None
    cost_usd: float
    logprob_mean: float | None
    logprob_min: float | None
    valid: bool | None


class Grade(_Told, frozen=True, kw_only=True):
    """What counts of one model's answer to one decision.

    score: of the source with the greatest weight, the latest of equals; one of form alone (`schema_valid`) only where
    nothing else was said. Where nobody gave one it is the feedback's: 1
    for liked, 0 for disliked, None for 0 or nothing. feedback: the latest of any source.

    graded_prob: probability by which this answer came to be graded, the greatest of those that graded it: what a client
    says of its own accord is 1. keep_prob: the same, but where a shadow run measured the answer, of being drawn for
    that, whoever graded it besides.
    """

    graded_prob: float = 1.0

    @property
    def is_form(self) -> bool:
        """Whether the score is of the answer's form alone."""
        return self.source == GraderName.SCHEMA_VALID


class _Said(_Told, frozen=True, kw_only=True):
    """One outcome, with the model it is about filled in."""

    decision_id: uuid.UUID
    model: str
    created_at: datetime


Grades = dict[uuid.UUID, dict[str, Grade]]
"""By decision and by the answering model's alias."""


async def load_grades(
    database: Database,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    ids: Collection[uuid.UUID] | None = None,
) -> Grades:
    """The grades of all decisions that were made in [since, until). Raises StorageUnavailable.

    ids: of these decisions only, some thousands at most; None is all.

    What a key says of another key's decision does not count, nor does what is said of a decision that is not there.
    """
    model = func.coalesce(func.nullif(_OUTCOMES.model, ""), _DECISIONS.model_served).label("model")
    names = [name for name in _Said.__struct_fields__ if name != "model"]
    ranked = (
        select(
            model,
            *(_OUTCOMES[name] for name in names),
            func.row_number()
            .over(
                partition_by=(_OUTCOMES.decision_id, model, _OUTCOMES.source, _OUTCOMES.shadow),
                order_by=(_OUTCOMES.created_at.desc(), _OUTCOMES.id.desc()),
            )
            .label("age"),
        )
        .select_from(OutcomeRow.__table__.join(DecisionRow.__table__, _DECISIONS.id == _OUTCOMES.decision_id))
        .where(_OUTCOMES.key_id.is_not_distinct_from(_DECISIONS.key_id), *_made(since, until, ids))
        .subquery()
    )
    query = select(*(ranked.c[name] for name in _Said.__struct_fields__)).where(
        ranked.c.age == 1, ranked.c.model.is_not(None)
    )
    async with database.read() as connection:
        said = [_Said(**row) for row in (await connection.execute(query)).mappings()]
    return _by_decision(said)


def _made(
    since: datetime | None, until: datetime | None, ids: Collection[uuid.UUID] | None
) -> list[ColumnElement[bool]]:
    bounds = []
    if since is not None:
        bounds.append(_DECISIONS.created_at >= since)
    if until is not None:
        bounds.append(_DECISIONS.created_at < until)
    if ids is not None:
        bounds.append(_DECISIONS.id.in_(list(ids)))
    return bounds


def _by_decision(said: Sequence[_Said]) -> Grades:
    gathered: defaultdict[uuid.UUID, defaultdict[str, list[_Said]]] = defaultdict(lambda: defaultdict(list))
    for one in said:
        gathered[one.decision_id][one.model].append(one)
    return {
        decision_id: {model: _grade(several) for model, several in by_model.items()}
        for decision_id, by_model in gathered.items()
    }


def _grade(said: Sequence[_Said]) -> Grade:
    """The one that counts of what several sources say of one answer."""
    scored = [one for one in said if one.score is not None]
    rated = [one for one in said if one.feedback is not None]
    latest = max(rated, key=lambda one: one.created_at, default=None)
    feedback = None if latest is None else latest.feedback
    best = max(
        scored, key=lambda one: (one.source != GraderName.SCHEMA_VALID, one.weight, one.created_at), default=latest
    )
    best = best or max(said, key=lambda one: one.created_at)
    score = best.score if scored else {1: 1.0, -1: 0.0}.get(feedback or 0)
    graded_prob = max((one.keep_prob for one in scored or rated), default=best.keep_prob)
    # What was measured while a shadow answer was made holds whoever gave the score that counts.
    measured = next((one for one in said if one.shadow), best)
    return Grade(
        score=score,
        feedback=feedback,
        source=best.source,
        weight=best.weight,
        shadow=measured.shadow,
        keep_prob=measured.keep_prob if measured.shadow else graded_prob,
        graded_prob=graded_prob,
        tokens=measured.tokens,
        cost_usd=measured.cost_usd,
        logprob_mean=measured.logprob_mean,
        logprob_min=measured.logprob_min,
        valid=measured.valid,
    )
