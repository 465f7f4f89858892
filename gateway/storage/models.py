"""The tables. Their columns are the fields of `records`, so that nothing has to be mapped by hand."""

import uuid
from datetime import datetime
from typing import Any, ClassVar

import msgspec
from sqlalchemy import JSON, Index, LargeBinary, MetaData, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gateway.storage.columns import CleanText, UtcDateTime
from gateway.storage.records import DecisionRecord, OutcomeRecord, Record, RequestRecord


class Base(DeclarativeBase):
    """Base of all tables; the naming convention lets migrations name every constraint."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        uuid.UUID: Uuid(),
        datetime: UtcDateTime(),
        str: CleanText(),
        bytes: LargeBinary(),
        dict[str, str]: JSON(),
        dict[str, float]: JSON(),
        dict[str, int]: JSON(),
        list[str]: JSON(),
    }


class ApiKeyRow(Base):
    """An API key; only its hash is stored. Keys are revoked, never deleted, so that usage stays attributable."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    router_admin: Mapped[bool]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class RequestRow(Base):
    """One request: see `RequestRecord`.

    key_id and decision_id are no foreign keys on purpose: rows are replayed in any order after an outage, and usage
    must never be refused because of another row.
    """

    __tablename__ = "requests"
    __table_args__ = (Index(None, "created_at"), Index(None, "key_id", "created_at"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    key_id: Mapped[uuid.UUID | None]
    decision_id: Mapped[uuid.UUID | None]
    trace_id: Mapped[str | None]
    endpoint: Mapped[str]
    model_requested: Mapped[str]
    model_served: Mapped[str | None]
    stream: Mapped[bool]
    choices: Mapped[int]
    constraint_kind: Mapped[str | None]
    backend: Mapped[str | None]
    status: Mapped[int]
    error_code: Mapped[str | None]
    finish_reason: Mapped[str | None]
    valid: Mapped[bool | None]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    cache_miss: Mapped[str | None]
    completion_tokens: Mapped[int]
    drafted_tokens: Mapped[int]
    accepted_tokens: Mapped[int]
    forced_tokens: Mapped[int]
    preemptions: Mapped[int]
    compile_s: Mapped[float | None]
    route_s: Mapped[float | None]
    queue_s: Mapped[float | None]
    prefill_s: Mapped[float | None]
    decode_s: Mapped[float | None]
    ttft_s: Mapped[float | None]
    itl_s: Mapped[float | None]
    duration_s: Mapped[float]
    cost_usd: Mapped[float]
    cost_route_usd: Mapped[float]
    cost_discarded_usd: Mapped[float]
    cost_draft_usd: Mapped[float]
    cost_if_large_usd: Mapped[float]
    price_version: Mapped[str]
    user: Mapped[str | None]
    # "metadata" is taken by SQLAlchemy on the class, not in the table.
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata")


class DecisionRow(Base):
    """One routing decision: see `DecisionRecord`."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "created_at"), Index(None, "request_id"), Index(None, "key_id", "created_at"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    request_id: Mapped[uuid.UUID]
    key_id: Mapped[uuid.UUID | None]
    schema_version: Mapped[int]
    route: Mapped[str]
    session_hash: Mapped[str | None]
    turn: Mapped[int | None]
    policy: Mapped[str]
    artefact_hash: Mapped[str | None]
    features_version: Mapped[str | None]
    features: Mapped[bytes | None]
    eligible: Mapped[list[str]]
    ineligible_reasons: Mapped[dict[str, str]]
    p_small: Mapped[float | None]
    p_large: Mapped[float | None]
    score: Mapped[float | None]
    ood_score: Mapped[float | None]
    expected_tokens: Mapped[dict[str, float]]
    expected_cost_usd: Mapped[dict[str, float]]
    expected_ttft_s: Mapped[dict[str, float]]
    load: Mapped[dict[str, float]]
    prefix_hit_tokens: Mapped[dict[str, int]]
    threshold: Mapped[float | None]
    target: Mapped[str | None]
    action: Mapped[str]
    reason: Mapped[str]
    propensity: Mapped[float]
    keep_prob: Mapped[float]
    explored: Mapped[bool]
    pinned: Mapped[bool]
    shadow: Mapped[bool]
    calibrated: Mapped[bool]
    early: Mapped[bool]
    wanted: Mapped[dict[str, float]]
    overhead_s: Mapped[float | None]
    model_served: Mapped[str | None]
    escalated: Mapped[bool]
    escalate_reason: Mapped[str | None]
    p_right: Mapped[float | None]
    ttft_s: Mapped[float | None]
    itl_s: Mapped[float | None]
    duration_s: Mapped[float | None]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    draft_accept_rate: Mapped[float | None]
    cost_usd: Mapped[float]
    cost_if_large_usd: Mapped[float]
    valid: Mapped[bool | None]
    logprob_mean: Mapped[float | None]
    logprob_min: Mapped[float | None]
    finish_reason: Mapped[str | None]
    feedback: Mapped[int | None]
    grade: Mapped[float | None]
    grade_source: Mapped[str | None]
    grade_weight: Mapped[float | None]


class OutcomeRow(Base):
    """What became known of an answer: see `OutcomeRecord`. decision_id is no foreign key, as in `RequestRow`."""

    __tablename__ = "outcomes"
    __table_args__ = (Index(None, "created_at"), Index(None, "decision_id"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    decision_id: Mapped[uuid.UUID]
    key_id: Mapped[uuid.UUID | None]
    model: Mapped[str]
    score: Mapped[float | None]
    feedback: Mapped[int | None]
    source: Mapped[str]
    weight: Mapped[float]
    shadow: Mapped[bool]
    keep_prob: Mapped[float]
    tokens: Mapped[int | None]
    cost_usd: Mapped[float]
    logprob_mean: Mapped[float | None]
    logprob_min: Mapped[float | None]
    valid: Mapped[bool | None]


def row_of(record: Record) -> dict[str, Any]:
    """The record's columns and values, nested timings flattened."""
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    if isinstance(record, RequestRecord):
        values |= msgspec.structs.asdict(values.pop("timing"))
    return values


ROWS: dict[type[Record], type[Base]] = {
    RequestRecord: RequestRow,
    DecisionRecord: DecisionRow,
    OutcomeRecord: OutcomeRow,
}
