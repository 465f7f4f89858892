"""Decisions with their outcomes as they come from the database: whose they are, in pages, and up to a bound."""

import uuid
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest

from gateway.reports import facts as facts_module
from gateway.reports.facts import load_facts
from gateway.storage.database import Database
from gateway.storage.grades import Grades, load_grades
from gateway.storage.identifiers import new_id
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.records import DecisionRecord, KeyRecord, OutcomeRecord, RequestRecord
from gateway.storage.sink import SqlRecordSink
from tests.gateway.report_worlds import NOW


async def test_a_key_sees_its_own_decisions_and_outcomes_only(database: Database) -> None:
    keys = SqlKeyRepository(database)
    mine, other = (KeyRecord(name=name, prefix=name, hash=name) for name in ("mine", "other"))
    for key in (mine, other):
        await keys.add(key)
    now = datetime.now(UTC)
    decisions = [
        DecisionRecord(
            request_id=new_id(),
            created_at=now - timedelta(minutes=5),
            key_id=key.id,
            policy="p",
            eligible=["small", "large"],
            action="small",
            reason="score_below_threshold",
            model_served="small",
            cost_usd=1.0,
            cost_if_large_usd=6.0,
        )
        for key in (mine, mine, other)
    ]
    outcomes = [
        OutcomeRecord(decision_id=decisions[0].id, key_id=mine.id, model="small", score=0.25, source="client"),
        OutcomeRecord(decision_id=decisions[1].id, key_id=other.id, model="small", score=1.0, source="client"),
    ]
    await SqlRecordSink(database).insert([*decisions, *outcomes])
    until = datetime.now(UTC)
    own = await load_facts(database, since=None, until=until, key_id=mine.id)
    assert {one.key for one in own} == {"mine"}
    assert sorted(one.answer_score or 0 for one in own) == [0, 0.25], "what another key says of it does not count"
    everything = await load_facts(database, since=None, until=until)
    assert [one.key for one in everything].count("other") == 1
    assert len(await load_facts(database, since=None, until=until, limit=2)) == 2


def decided(i: int, **fields: object) -> DecisionRecord:
    """A decision with an outcome, the larger i the later; two each share their time."""
    known: dict[str, object] = {
        "request_id": new_id(),
        "created_at": NOW + timedelta(seconds=i // 2),
        "policy": "p",
        "eligible": ["small", "large"],
        "action": "small",
        "reason": "score_below_threshold",
        "model_served": "small",
    }
    return DecisionRecord(**(known | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [None, 1, 3, 4, 7, 9])
async def test_a_long_period_is_read_in_pages_each_decision_once_with_its_grades(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(facts_module, "_PAGE", 3)
    asked: list[int] = []

    async def counted(of: Database, **selection: Collection[uuid.UUID]) -> Grades:
        asked.append(len(selection["ids"]))
        return await load_grades(of, **selection)

    monkeypatch.setattr(facts_module, "load_grades", counted)
    made = [decided(i) for i in range(8)]
    said = [
        OutcomeRecord(decision_id=one.id, model="small", score=i / 8, source="client") for i, one in enumerate(made)
    ]
    await SqlRecordSink(database).insert([*made, *said])
    found = await load_facts(database, since=None, until=NOW + timedelta(days=1), limit=limit)
    in_order = [one.id for one in sorted(made, key=lambda one: (one.created_at, one.id))]
    assert [one.id for one in found] == in_order[-limit:] if limit else in_order
    scores = {one.decision_id: one.score for one in said}
    assert all(one.answer_score == scores[one.id] for one in found)
    assert max(asked) <= 3, "a statement reads one page"
    assert sum(asked) == len(found)


async def test_features_are_read_up_to_a_bound_the_latest_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "_PAGE", 2)
    monkeypatch.setattr(facts_module, "_MOST_FEATURE_BYTES", 250)
    made = [decided(2 * i, features=bytes(100), features_version="2") for i in range(8)]
    await SqlRecordSink(database).insert(made)
    until = NOW + timedelta(days=1)
    found = await load_facts(database, since=None, until=until, with_features=True)
    assert [one.id for one in found] == [one.id for one in made[4:]], "two pages of two"
    assert len(await load_facts(database, since=None, until=until)) == 8


@pytest.mark.parametrize(
    ("escalated", "discarded_usd", "alone_usd"),
    [
        (True, 0.5, 0.5),  # the answer that was not sent is the small one's
        (True, None, 4.0),  # the request's record has not arrived
        (False, 3.0, 1.0),  # a second answer that failed
        (False, 0.0, 4.0),
    ],
)
async def test_the_small_answer_alone_is_known_where_the_requests_record_tells_it(
    database: Database, escalated: bool, discarded_usd: float | None, alone_usd: float
) -> None:
    one = decided(0, escalated=escalated, cost_usd=4.0, model_served="large" if escalated else "small")
    request = RequestRecord(
        id=one.request_id, endpoint="x", model_requested="auto", status=200, cost_discarded_usd=discarded_usd or 0.0
    )
    await SqlRecordSink(database).insert([one] if discarded_usd is None else [one, request])
    (found,) = await load_facts(database, since=None, until=NOW + timedelta(days=1))
    assert (found.small_answer_usd, found.cost_usd) == (alone_usd, 4.0)
