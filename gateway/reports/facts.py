"""The decisions of a period with everything that the router's report and its off-policy estimates need of each."""

import uuid
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, func, select, tuple_

from gateway.reports.routing import EXPLICIT, RoutedRequest
from gateway.storage.database import Database
from gateway.storage.grades import Grade, load_grades
from gateway.storage.models import ApiKeyRow, DecisionRow, RequestRow
from router_model.options import Action

MOST_DECISIONS = 20_000
"""A report reads no more than the latest this many, which takes about 2 seconds."""

_PAGE = 500
_MOST_FEATURE_BYTES = 256 << 20

_DECISIONS, _REQUESTS = DecisionRow.__table__.c, RequestRow.__table__.c


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One answered decision; the fields are those of `DecisionRecord`, `key` the name of its key.

    grades: what is known of the models' answers, by alias: of the one that answered, and of both where a shadow run
    made the pair. drafted_tokens, accepted_tokens, cost_discarded_usd (of the answer that was not sent): of its
    request's record, 0 where that has not arrived.
    """

    id: uuid.UUID
    created_at: datetime
    key: str | None
    route: str
    session_hash: str | None
    artefact_hash: str | None
    features_version: str | None
    eligible: list[str]
    p_small: float | None
    p_large: float | None
    score: float | None
    ood_score: float | None
    expected_cost_usd: dict[str, float]
    threshold: float | None
    target: str | None
    wanted: dict[str, float]
    action: str
    reason: str
    propensity: float
    keep_prob: float
    explored: bool
    pinned: bool
    calibrated: bool
    early: bool
    overhead_s: float | None
    model_served: str
    escalated: bool
    escalate_reason: str | None
    ttft_s: float | None
    itl_s: float | None
    duration_s: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: float
    cost_if_large_usd: float
    valid: bool | None
    feedback: int | None
    grade: float | None
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    cost_discarded_usd: float = 0.0
    features: bytes | None = None
    grades: dict[str, Grade] = {}

    @property
    def is_routed(self) -> bool:
        """Whether the router chose, and not the client."""
        return self.reason != EXPLICIT

    @property
    def went_large(self) -> bool:
        """The action as decided: an answer that escalated afterwards is still one of the small model's decisions."""
        return self.action != Action.SMALL

    @property
    def small_answer_usd(self) -> float:
        """What the small model's answer alone cost of a decision for it, without a second one; with that, where the
        record that tells both apart has not arrived.
        """
        if not self.escalated:
            return self.cost_usd - self.cost_discarded_usd  # of a second answer that failed
        return self.cost_discarded_usd or self.cost_usd

    @property
    def answer_score(self) -> float | None:
        """Grade of the answer that the client got, 0 to 1, None where nobody graded it."""
        known = self.grades.get(self.model_served)
        return self.grade if known is None or known.score is None else known.score

    @property
    def graded_prob(self) -> float:
        """Probability by which that grade came to be."""
        known = self.grades.get(self.model_served)
        return 1.0 if known is None or known.score is None else known.graded_prob

    @property
    def answer_feedback(self) -> int | None:
        """The client's -1, 0 or 1."""
        known = self.grades.get(self.model_served)
        return self.feedback if known is None or known.feedback is None else known.feedback

    def routed_request(self) -> RoutedRequest:
        """What the routing report's table needs of it."""
        return RoutedRequest(
            model=self.model_served,
            reason=self.reason,
            explored=self.explored,
            escalated=self.escalated,
            calibrated=self.calibrated,
            early=self.early,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
            cost_usd=self.cost_usd,
            cost_if_large_usd=self.cost_if_large_usd,
            ttft_s=self.ttft_s,
            valid=self.valid,
            feedback=self.answer_feedback,
            grade=self.answer_score,
        )


async def load_facts(
    database: Database,
    *,
    since: datetime | None,
    until: datetime,
    key_id: uuid.UUID | None = None,
    with_features: bool = False,
    limit: int | None = MOST_DECISIONS,
) -> list[Facts]:
    """Decisions with an outcome, made in [since, until), oldest first: the latest `limit` of them, or all.

    key_id: only that key's; None is everybody's. with_features: then no more than 256 MiB of features are read, and
    decisions before those are left out. A decision counts without its request's row, which may still wait in a spool.
    No statement reads more than a page, however long the period is. Raises StorageUnavailable.
    """
    query = _query(since, until, key_id, with_features=with_features)
    found: list[Facts] = []
    feature_bytes, after = 0, query
    while (limit is None or len(found) < limit) and feature_bytes < _MOST_FEATURE_BYTES:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        async with database.read() as connection:
            rows = (await connection.execute(after.limit(size))).mappings().all()
        grades = await load_grades(database, ids=[row["id"] for row in rows]) if rows else {}
        page = [Facts(**row, grades=grades.get(row["id"], {})) for row in rows]
        found += page
        if len(page) < size:
            break
        feature_bytes += sum(len(one.features or b"") for one in page)
        last = page[-1]
        after = query.where(tuple_(_DECISIONS.created_at, _DECISIONS.id) < tuple_(last.created_at, last.id))
    return found[::-1]


def _query(since: datetime | None, until: datetime, key_id: uuid.UUID | None, *, with_features: bool) -> Select[Any]:
    """The decisions, latest first."""
    of_request = ("drafted_tokens", "accepted_tokens", "cost_discarded_usd")
    left_out = {"key", "grades", *of_request} | (set() if with_features else {"features"})
    fields = [_DECISIONS[name] for name in Facts.__struct_fields__ if name not in left_out]
    fields += [func.coalesce(_REQUESTS[name], 0).label(name) for name in of_request]
    keys = ApiKeyRow.__table__
    query = (
        select(keys.c.name.label("key"), *fields)
        .select_from(
            DecisionRow.__table__.outerjoin(RequestRow.__table__, _REQUESTS.id == _DECISIONS.request_id).outerjoin(
                keys, keys.c.id == _DECISIONS.key_id
            )
        )
        .where(_DECISIONS.model_served.is_not(None), _DECISIONS.shadow.is_(False), _DECISIONS.created_at < until)
        .order_by(_DECISIONS.created_at.desc(), _DECISIONS.id.desc())
    )
    if since is not None:
        query = query.where(_DECISIONS.created_at >= since)
    return query if key_id is None else query.where(_DECISIONS.key_id == key_id)
