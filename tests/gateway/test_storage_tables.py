"""Keys, requests and decisions on SQLite and on a real PostgreSQL server."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from engine.request import RequestTimeline
from gateway.accounts.keys import generate_key
from gateway.secret import Secret
from gateway.storage.database import Database
from gateway.storage.identifiers import made_at_s, new_id
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.models import ROWS, DecisionRow, RequestRow, row_of
from gateway.storage.protocols import RowsRefused, StorageUnavailable
from gateway.storage.records import DecisionRecord, OutcomeRecord, Record, RequestRecord, Timing
from gateway.storage.sink import SqlRecordSink


def full_request() -> RequestRecord:
    """A request with every field set to something else than its default."""
    return RequestRecord(
        key_id=new_id(),
        decision_id=new_id(),
        trace_id="a" * 32,
        endpoint="/v1/chat/completions",
        model_requested="auto",
        model_served="small",
        stream=True,
        choices=2,
        constraint_kind="json_schema",
        backend="xgrammar",
        status=200,
        error_code="engine_died",
        finish_reason="stop",
        valid=False,
        prompt_tokens=3,
        cached_tokens=2,
        cache_miss="evicted",
        completion_tokens=5,
        drafted_tokens=4,
        accepted_tokens=1,
        forced_tokens=2,
        preemptions=1,
        compile_s=0.25,
        route_s=0.5,
        timing=Timing(queue_s=0.1, prefill_s=0.2, decode_s=0.3, ttft_s=0.4, itl_s=0.5),
        duration_s=1.5,
        cost_usd=1e-9,
        cost_route_usd=1e-10,
        cost_discarded_usd=2e-10,
        cost_draft_usd=3e-10,
        cost_if_large_usd=6e-9,
        price_version="2026-11-01",
        user="jürgen 😀",
        metadata={"team": "a", "note": "NUL \0 and \u2028"},
    )


def full_decision() -> DecisionRecord:
    """A decision with every field set."""
    return DecisionRecord(
        request_id=new_id(),
        key_id=new_id(),
        schema_version=2,
        route="chat",
        session_hash="abc",
        turn=3,
        policy="learned",
        artefact_hash="ff",
        features_version="1",
        features=bytes(range(64)),
        eligible=["small", "large"],
        ineligible_reasons={"large": "breaker_open"},
        p_small=0.7,
        p_large=0.9,
        score=0.2,
        ood_score=1.5,
        expected_tokens={"small": 20.0},
        expected_cost_usd={"small": 1e-7},
        expected_ttft_s={"small": 0.01},
        load={"running": 3.0},
        prefix_hit_tokens={"small": 16},
        threshold=0.1,
        target="quality",
        action="small",
        reason="score",
        propensity=0.95,
        keep_prob=0.5,
        explored=True,
        pinned=True,
        shadow=True,
        calibrated=False,
        early=True,
        wanted={"quality": 0.9},
        overhead_s=0.0005,
        model_served="large",
        escalated=True,
        escalate_reason="invalid",
        p_right=0.3,
        ttft_s=0.1,
        itl_s=0.01,
        duration_s=1.0,
        prompt_tokens=10,
        cached_tokens=8,
        completion_tokens=6,
        draft_accept_rate=0.5,
        cost_usd=1e-6,
        cost_if_large_usd=2e-6,
        valid=True,
        logprob_mean=-0.5,
        logprob_min=-2.5,
        finish_reason="stop",
        feedback=-1,
        grade=0.5,
        grade_source="judge",
        grade_weight=0.25,
    )


def full_outcome() -> OutcomeRecord:
    """An outcome with every field set."""
    return OutcomeRecord(
        decision_id=new_id(),
        key_id=new_id(),
        model="small",
        score=0.25,
        feedback=-1,
        source="judge",
        weight=0.5,
        shadow=True,
        keep_prob=0.05,
        tokens=12,
        cost_usd=1e-7,
        logprob_mean=-0.25,
        logprob_min=-4.0,
        valid=False,
    )


async def stored(database: Database, record: Record) -> dict[str, Any]:
    row = ROWS[type(record)]
    async with database.read() as connection:
        result = await connection.execute(select(row.__table__).where(row.__table__.c.id == record.id))
        return dict(result.mappings().one())


@pytest.mark.parametrize("kind", ROWS)
def test_columns_are_the_fields_of_the_record(kind: type[Record]) -> None:
    (record,) = (one for one in (full_request(), full_decision(), full_outcome()) if type(one) is kind)
    assert set(row_of(record)) == {column.name for column in ROWS[kind].__table__.columns}


@pytest.mark.parametrize(
    "record", [full_request(), full_decision(), full_outcome()], ids=["request", "decision", "outcome"]
)
async def test_what_is_inserted_is_what_is_read(database: Database, record: Record) -> None:
    defaults = type(record)
    unset = [name for name, value in row_of(record).items() if value is None]
    assert not unset, f"this test must set every field of {defaults.__name__}"
    await SqlRecordSink(database).insert([record])
    assert await stored(database, record) == row_of(record)


async def test_a_bare_request_can_be_stored(database: Database) -> None:
    record = RequestRecord(endpoint="/v1/chat/completions", model_requested="auto", status=400)
    await SqlRecordSink(database).insert([record])
    assert await stored(database, record) == row_of(record)


async def test_inserting_again_changes_nothing(database: Database) -> None:
    first = full_request()
    sink = SqlRecordSink(database)
    await sink.insert([first])
    again = RequestRecord(id=first.id, endpoint="other", model_requested="other", status=500)
    await sink.insert([again, full_decision()])
    assert await stored(database, first) == row_of(first)
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(RequestRow)) == 1
        assert await connection.scalar(select(func.count()).select_from(DecisionRow)) == 1


async def test_a_batch_is_stored_in_full_or_not_at_all(database: Database) -> None:
    good, bad = full_request(), RequestRecord(endpoint="x", model_requested="x", status=10**30)
    with pytest.raises(RowsRefused):
        await SqlRecordSink(database).insert([good, bad])
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(RequestRow)) == 0


async def test_text_that_no_database_takes_is_mended(database: Database) -> None:
    record = RequestRecord(endpoint="x", model_requested="a\0b", status=200, user="lone \ud800 surrogate")
    await SqlRecordSink(database).insert([record])
    row = await stored(database, record)
    assert (row["model_requested"], row["user"]) == ("a\ufffdb", "lone \ufffd surrogate")


async def test_times_come_back_in_utc_whatever_zone_they_had(database: Database) -> None:
    moment = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    record = RequestRecord(created_at=moment, endpoint="x", model_requested="x", status=200)
    await SqlRecordSink(database).insert([record])
    found = (await stored(database, record))["created_at"]
    assert found == moment
    assert found.utcoffset() == timedelta(0)


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    record = RequestRecord(created_at=datetime(2026, 1, 1), endpoint="x", model_requested="x", status=200)
    with pytest.raises(RowsRefused, match="no time zone"):
        await SqlRecordSink(database).insert([record])


async def test_many_writers_at_once_lose_nothing(database: Database) -> None:
    sink = SqlRecordSink(database)
    rows = [full_request() for _ in range(40)]
    await asyncio.gather(*(sink.insert([row]) for row in rows))
    async with database.read() as connection:
        found = set(await connection.scalars(select(RequestRow.id)))
    assert found == {row.id for row in rows}


async def test_keys_are_stored_listed_and_revoked(database: Database) -> None:
    keys = SqlKeyRepository(database)
    assert not await keys.any_created()
    first, second = (generate_key(name, Secret("")).record for name in ("first", "second"))
    await keys.add(first)
    await keys.add(second)
    assert await keys.any_created()
    assert await keys.all() == [first, second]
    assert await keys.by_hash(first.hash) == first
    assert await keys.by_hash("0" * 64) is None
    revoked = await keys.revoke(first.prefix)
    assert revoked.revoked_at is not None
    assert datetime.now(UTC) - revoked.revoked_at < timedelta(minutes=1)
    assert await keys.revoke(str(first.id)) == revoked, "revoking twice must keep the first moment"
    assert await keys.by_hash(first.hash) == revoked
    assert await keys.by_hash(second.hash) == second
    assert await keys.any_created()


async def test_revoking_names_exactly_one_key(database: Database) -> None:
    keys = SqlKeyRepository(database)
    with pytest.raises(LookupError, match="keys list"):
        await keys.revoke("sk-unknown")
    key = generate_key("a", Secret("")).record
    twin = generate_key("b", Secret("")).record
    await keys.add(key)
    await keys.add(type(twin)(id=twin.id, name="b", prefix=key.prefix, hash=twin.hash))
    with pytest.raises(LookupError, match="2 keys"):
        await keys.revoke(key.prefix)
    assert (await keys.revoke(str(twin.id))).revoked_at is not None


async def test_two_keys_cannot_share_a_hash(database: Database) -> None:
    keys = SqlKeyRepository(database)
    key = generate_key("a", Secret("")).record
    await keys.add(key)
    with pytest.raises(RowsRefused):
        await keys.add(type(key)(name="b", prefix="x", hash=key.hash))


async def test_an_injected_prefix_is_only_a_prefix(database: Database) -> None:
    keys = SqlKeyRepository(database)
    await keys.add(generate_key("a", Secret("")).record)
    with pytest.raises(LookupError):
        await keys.revoke("' OR '1'='1")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql+asyncpg://postgres@127.0.0.1:1/none")
    with pytest.raises(StorageUnavailable, match="cannot be reached"):
        await SqlKeyRepository(database).all()
    await database.close()


async def test_sqlite_readers_do_not_wait_for_a_writer(sqlite_database_url: str) -> None:
    database = Database(sqlite_database_url, timeout_s=1.0)
    async with database.write() as connection:
        await connection.execute(insert(RequestRow), [row_of(full_request())])
        async with database.read() as reader:
            assert await reader.scalar(select(func.count()).select_from(RequestRow)) == 0
    await database.close()


@given(st.lists(st.none(), min_size=2, max_size=50))
def test_identifiers_are_unique_version_7_and_sort_by_time(many: list[None]) -> None:
    identifiers: list[UUID] = [new_id() for _ in many]
    assert len(set(identifiers)) == len(identifiers)
    assert {identifier.version for identifier in identifiers} == {7}
    times = [made_at_s(identifier) for identifier in identifiers]
    assert times == sorted(times)
    assert abs(times[-1] - datetime.now(UTC).timestamp()) < 60


def test_a_timeline_becomes_durations() -> None:
    timeline = RequestTimeline(
        arrived_s=10.0, admitted_s=10.5, first_token_s=11.0, finished_s=13.0, token_times_s=[11.0, 12.0, 13.0]
    )
    assert Timing.of(timeline) == Timing(queue_s=0.5, prefill_s=0.5, decode_s=2.0, ttft_s=1.0, itl_s=1.0)
    assert Timing.of(RequestTimeline(arrived_s=10.0, finished_s=11.0)) == Timing()
