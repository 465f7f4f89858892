"""The deployment's own log as outcomes to train on: what the router read, what it did with which probability, and how
good the answers turned out to be.

    decisions (features, action, propensity) + grades (clients, graders) -> one row, the side of who was chosen known
                                             + shadow pairs              -> one row, both sides known

What the large model made of an answer that it gave in the small one's place is no side of such a row: it is known of
requests that the small model failed at, or seemed to, and of no others.

No text is in it. A row's weight undoes the ways by which it came to be: one over the probability of the action times
that of being graded (or, for a shadow pair, over that of being drawn), times the label's own weight.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Select, select, tuple_

from gateway.storage.database import Database
from gateway.storage.grades import Grade, Grades, load_grades
from gateway.storage.models import DecisionRow
from router_model.facts import RequestFacts
from router_model.features import FEATURE_SCHEMA_VERSION, Features, Kind
from router_model.options import Action
from router_model.outcomes import Choice, OutcomeRow, write_outcomes

MAX_WEIGHT: Final = 20.0
"""Neither chance, of the action or of being graded, makes a row count more than this many: a handful of rare draws must
not outvote everything else. They are bounded apart, so that where few answers are graded the explored ones still speak
for all that they stand for.
"""

CASCADE: Final = "cascade"
"""Source of labels that come from the second chance's own judgement of a small answer."""

_PAGE = 2_000
_DECISIONS = DecisionRow.__table__.c


class _Logged(msgspec.Struct, frozen=True, kw_only=True):
    """What a row needs of its decision; the fields are those of `DecisionRecord`."""

    id: uuid.UUID
    created_at: datetime
    session_hash: str | None
    route: str
    features: bytes
    prompt_tokens: int
    threshold: float | None
    action: str
    propensity: float
    model_served: str
    escalated: bool
    escalate_reason: str | None
    completion_tokens: int
    cost_usd: float
    cost_if_large_usd: float
    valid: bool | None
    logprob_mean: float | None
    logprob_min: float | None
    p_right: float | None


class OwnLog(msgspec.Struct, frozen=True, kw_only=True):
    """rows: in the order of the decisions, with features of one kind. pairs: of them, those with both models graded.

    ungraded: decisions with features of which nobody said how good the answer was. other_kind: graded ones whose
    features are of another kind, such as those of early decisions, which no prefill was computed for.
    """

    rows: list[OutcomeRow]
    pairs: int
    ungraded: int
    other_kind: int


async def read_log(
    database: Database,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    kind: Kind | None = None,
    most: int | None = None,
) -> OwnLog:
    """The log of decisions made in [since, until) whose features this version reads. Raises StorageUnavailable.

    kind: of the features; None for the one that most rows have. most: only the latest so many rows are read; None is
    all. Rows are made in a thread, a page at a time: a server goes on serving.
    """
    query = select(*(_DECISIONS[name] for name in _Logged.__struct_fields__)).where(
        _DECISIONS.features.is_not(None),
        _DECISIONS.features_version == str(FEATURE_SCHEMA_VERSION),
        _DECISIONS.model_served.is_not(None),
        _DECISIONS.shadow.is_(False),
    )
    if since is not None:
        query = query.where(_DECISIONS.created_at >= since)
    if until is not None:
        query = query.where(_DECISIONS.created_at < until)
    query = query.order_by(_DECISIONS.created_at.desc(), _DECISIONS.id.desc()).limit(_PAGE)
    rows: list[tuple[OutcomeRow, Kind | None]] = []  # latest first
    n_decisions = 0
    page = await _page(database, query)
    while page:
        grades = await load_grades(database, ids=[one.id for one in page])
        rows += await asyncio.to_thread(_rows, page, grades)
        n_decisions += len(page)
        if most is not None and len(rows) >= most:
            break
        after = page[-1].created_at, page[-1].id
        page = await _page(database, query.where(tuple_(_DECISIONS.created_at, _DECISIONS.id) < tuple_(*after)))
    n_rows = len(rows)
    rows = rows[:most][::-1]
    counts = Counter(one for _, one in rows if one is not None)
    wanted = kind or next((one for one, _ in counts.most_common(1)), None)
    kept = [row for row, one in rows if one is not None and one is wanted]
    return OwnLog(
        rows=kept,
        pairs=sum(row.weak_score is not None and row.strong_score is not None for row in kept),
        ungraded=n_decisions - n_rows,
        other_kind=len(rows) - len(kept),
    )


async def export_log(database: Database, out: Path, since: datetime | None = None) -> OwnLog:
    """`read_log` into a file of JSON lines, gzipped if its name ends in .gz. Raises StorageUnavailable or OSError."""
    found = await read_log(database, since)
    write_outcomes(out, found.rows)
    return found


async def _page(database: Database, query: Select[Any]) -> list[_Logged]:
    """The next decisions: no statement reads more than a page, however long the log is."""
    async with database.read() as connection:
        return [_Logged(**row) for row in (await connection.execute(query)).mappings()]


def _rows(page: Sequence[_Logged], grades: Grades) -> list[tuple[OutcomeRow, Kind | None]]:
    """The page's rows with the kind of their features."""
    found = (_row(one, grades.get(one.id, {})) for one in page)
    return [(row, _kind(row)) for row in found if row is not None]


def _kind(row: OutcomeRow) -> Kind | None:
    """Of the row's features; None where they cannot be read."""
    try:
        return None if row.features is None else Features.unpack(row.features).kind
    except ValueError:
        return None


def _row(decision: _Logged, grades: Mapping[str, Grade]) -> OutcomeRow | None:
    """The row of a decision; None where no score is known."""
    small, large = _scored(grades)
    known = [grade for grade in (small, large) if grade is not None]
    if not known:
        return None
    weak = None if small is None else small.score
    strong = None if large is None else large.score
    answer = _small_answer(decision, grades.get("small"))
    source = known[0].source
    if decision.escalated and weak is None:
        weak, strong, source = _weak_score(decision), None, CASCADE
        if weak is None:
            return None
        if decision.escalate_reason == "low_confidence":
            answer = _SmallAnswer()  # its score is what the model of answers made of it: nothing to learn for that one
    action, propensity = Action(decision.action), decision.propensity
    served = weak if action is Action.SMALL else strong
    if served is None:
        # Only the other model's answer was graded, by a client that asked both. The row tells of that model, and
        # nothing of what the policy's choice was worth.
        action = action.other
    if weak is not None and strong is not None:
        row_weight = _inverse(min(grade.keep_prob for grade in known))
    else:
        row_weight = _inverse(propensity) * _inverse(min(grade.graded_prob for grade in known))
    return OutcomeRow(
        id=str(decision.id),
        group=decision.session_hash or "",
        session=decision.session_hash or "",
        source=source,
        route=decision.route,
        weight=min(grade.weight for grade in known) * row_weight,
        weak_score=weak,
        strong_score=strong,
        facts=RequestFacts(prompt_tokens=decision.prompt_tokens),
        features=decision.features,
        action=action,
        propensity=None if served is None else propensity,
        threshold=decision.threshold,
        cost_usd=decision.cost_usd,
        cost_if_large_usd=decision.cost_if_large_usd,
        decided_at=decision.created_at,
        small_tokens=_tokens(decision, "small", small),
        large_tokens=_tokens(decision, "large", large),
        small_logprob_mean=answer.logprob_mean,
        small_logprob_min=answer.logprob_min,
        small_valid=answer.valid,
        choice=_choice(decision, grades),
    )


def _scored(grades: Mapping[str, Grade]) -> tuple[Grade | None, Grade | None]:
    """What was said of the small and of the large model's answer, where a score was given.

    A score of form alone is left out beside one of what the other model said: their difference would mean nothing.
    """
    small, large = (None if one is None or one.score is None else one for one in map(grades.get, ("small", "large")))
    if small is not None and large is not None and small.is_form != large.is_form:
        return (None, large) if small.is_form else (small, None)
    return small, large


def _weak_score(decision: _Logged) -> float | None:
    """Of a small answer that another was given for: 0 if it failed, else what the model of answers made of it."""
    if decision.escalate_reason in {"invalid", "length", "empty"}:
        return 0.0  # what breaks its constraint, is cut off or says nothing is wrong
    return decision.p_right


def _choice(decision: _Logged, grades: Mapping[str, Grade]) -> Choice | None:
    """The decision as it was taken, with the score of what the client got; None where that was not graded."""
    served = grades.get(decision.model_served)
    if served is None or served.score is None:
        return None
    return Choice(
        action=Action(decision.action),
        propensity=decision.propensity,
        reward=served.score,
        is_escalated=decision.escalated,
        graded_prob=served.graded_prob,
    )


def _inverse(probability: float) -> float:
    return min(1 / probability, MAX_WEIGHT)


def _tokens(decision: _Logged, model: str, grade: Grade | None) -> int | None:
    if decision.model_served == model:
        return decision.completion_tokens
    return None if grade is None else grade.tokens


class _SmallAnswer(msgspec.Struct, frozen=True, kw_only=True):
    logprob_mean: float | None = None
    logprob_min: float | None = None
    valid: bool | None = None


def _small_answer(decision: _Logged, grade: Grade | None) -> _SmallAnswer:
    """What was measured of the small model's answer: the one that the cascade judged, or the shadow run's."""
    if decision.action == "small":
        valid = decision.escalate_reason != "invalid" if decision.escalated else decision.valid
        return _SmallAnswer(logprob_mean=decision.logprob_mean, logprob_min=decision.logprob_min, valid=valid)
    if grade is not None and grade.shadow:
        return _SmallAnswer(logprob_mean=grade.logprob_mean, logprob_min=grade.logprob_min, valid=grade.valid)
    return _SmallAnswer()
