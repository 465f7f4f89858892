"""Decisions and what is said of their answers, as outcomes to train on: on SQLite and PostgreSQL."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete

from gateway.routing import own_log
from gateway.routing.own_log import MAX_WEIGHT, export_log, read_log
from gateway.storage.database import Database
from gateway.storage.grades import Grade, load_grades
from gateway.storage.identifiers import new_id
from gateway.storage.models import DecisionRow
from gateway.storage.records import DecisionRecord, OutcomeRecord, Record
from gateway.storage.sink import SqlRecordSink
from router_model.cascade import answer_of
from router_model.facts import RequestFacts
from router_model.features import FEATURE_SCHEMA_VERSION, Kind, extract
from router_model.options import Action
from router_model.outcomes import read_outcomes
from router_model.prefill import PrefillState

KEY = new_id()
STATE = PrefillState(np.random.default_rng(0).normal(size=(2, 2, 8)).astype(np.float32), 1.0, 2.0)
OF_STATE = extract("Which way?", RequestFacts(), STATE).pack()
OF_TEXT = extract("Which way?", RequestFacts()).pack()
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def decision(**fields: object) -> DecisionRecord:
    """A routed request that the small model answered."""
    defaults: dict[str, object] = {
        "request_id": new_id(),
        "created_at": NOW,
        "key_id": KEY,
        "policy": "state-router-1",
        "features": OF_STATE,
        "features_version": str(FEATURE_SCHEMA_VERSION),
        "eligible": ["small", "large"],
        "action": "small",
        "reason": "score_below_threshold",
        "propensity": 0.95,
        "model_served": "small",
        "completion_tokens": 7,
        "prompt_tokens": 11,
    }
    return DecisionRecord(**defaults | fields)  # type: ignore[arg-type]


def outcome(of: DecisionRecord, **fields: object) -> OutcomeRecord:
    """A statement by the decision's key, on the model that answered."""
    defaults: dict[str, object] = {
        "decision_id": of.id,
        "key_id": of.key_id,
        "model": of.model_served,
        "source": "client",
    }
    return OutcomeRecord(**defaults | fields)  # type: ignore[arg-type]


async def store(database: Database, *records: Record) -> None:
    await SqlRecordSink(database).insert(records)


async def test_a_row_has_the_decision_and_the_grade(database: Database) -> None:
    made = decision(session_hash="abc", route="chat", threshold=0.25, cost_usd=1e-6, logprob_mean=-0.5, valid=True)
    await store(database, made, outcome(made, score=0.75))
    (row,) = (await read_log(database)).rows
    assert (row.id, row.group, row.session, row.route) == (str(made.id), "abc", "abc", "chat")
    assert (row.weak_score, row.strong_score) == (0.75, None)
    assert (row.action, row.propensity, row.threshold) == (Action.SMALL, 0.95, 0.25)
    assert row.features == OF_STATE
    assert row.weight == pytest.approx(1 / 0.95)
    assert (row.small_tokens, row.large_tokens, row.facts.prompt_tokens) == (7, None, 11)
    assert (row.small_logprob_mean, row.small_valid) == (-0.5, True)
    assert row.decided_at == NOW


async def test_what_is_exported_can_be_read_as_outcomes(database: Database, tmp_path: Path) -> None:
    later = NOW + timedelta(seconds=1)
    made = [decision(), decision(created_at=later, action="large", model_served="large", propensity=0.05)]
    await store(database, *made, *(outcome(one, score=1.0) for one in made))
    found = await export_log(database, tmp_path / "log.jsonl.gz")
    read = read_outcomes([tmp_path / "log.jsonl.gz"])
    assert [one.id for one in read] == [str(one.id) for one in made]
    assert [one.action for one in read] == [Action.SMALL, Action.LARGE]
    assert [one.weight for one in read] == [pytest.approx(1 / 0.95), 20.0]
    assert (found.pairs, found.ungraded) == (0, 0)


async def test_a_shadow_pair_is_one_row_with_both_sides(database: Database) -> None:
    made = decision()
    await store(
        database,
        made,
        outcome(made, score=0.0, source="command", shadow=True, keep_prob=0.1, tokens=7, logprob_min=-3.0),
        outcome(made, model="large", score=1.0, source="command", shadow=True, keep_prob=0.1, tokens=9, cost_usd=1e-6),
    )
    found = await read_log(database)
    (row,) = found.rows
    assert found.pairs == 1
    assert (row.weak_score, row.strong_score, row.source) == (0.0, 1.0, "command")
    assert (row.small_tokens, row.large_tokens) == (7, 9)
    assert row.weight == pytest.approx(10.0)
    assert row.action is Action.SMALL


async def test_rare_draws_do_not_count_without_bound(database: Database) -> None:
    made = decision()
    both = [outcome(made, model=name, score=1.0, shadow=True, keep_prob=1e-4) for name in ("small", "large")]
    await store(database, made, *both)
    assert [row.weight for row in (await read_log(database)).rows] == [MAX_WEIGHT]


async def test_without_a_grade_there_is_no_row(database: Database) -> None:
    quiet, retracted, ungraded = decision(), decision(), decision()
    await store(
        database,
        quiet,
        retracted,
        outcome(retracted, feedback=0),
        ungraded,
        outcome(ungraded, source="command", shadow=True),
    )
    found = await read_log(database)
    assert (found.rows, found.ungraded) == ([], 3)


@pytest.mark.parametrize(
    "unusable",
    [{"features": None}, {"features_version": "0"}, {"model_served": None}, {"shadow": True}],
    ids=["no features", "of another version", "never answered", "no client's"],
)
async def test_what_no_router_could_read_is_left_out(database: Database, unusable: dict[str, object]) -> None:
    made = decision(**unusable)
    await store(database, made, outcome(made, model="small", score=1.0))
    found = await read_log(database)
    assert (found.rows, found.ungraded) == ([], 0)


async def test_a_long_log_is_read_to_its_end_in_order(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_log, "_PAGE", 3)
    made = [decision(created_at=NOW + timedelta(seconds=i // 4)) for i in range(10)]  # equal times across a page's end
    await store(database, *made, *(outcome(one, score=1.0) for one in made))
    found = [row.id for row in (await read_log(database)).rows]
    assert found == [str(one.id) for one in sorted(made, key=lambda one: (one.created_at, one.id))]


async def test_a_log_has_features_of_one_kind(database: Database) -> None:
    made = [decision(), decision(), decision(features=OF_TEXT, early=True), decision(features=b"damaged")]
    await store(database, *made, *(outcome(one, score=1.0) for one in made))
    found = await read_log(database)
    assert ({row.id for row in found.rows}, found.other_kind) == ({str(one.id) for one in made[:2]}, 2)
    found = await read_log(database, kind=Kind.TEXT)
    assert ([row.id for row in found.rows], found.other_kind) == ([str(made[2].id)], 3)


async def test_only_the_period_asked_for_is_read(database: Database) -> None:
    old, new = decision(created_at=NOW - timedelta(days=2)), decision()
    await store(database, old, new, outcome(old, score=1.0), outcome(new, score=1.0))
    assert [row.id for row in (await read_log(database, NOW - timedelta(days=1))).rows] == [str(new.id)]
    assert [row.id for row in (await read_log(database, until=NOW)).rows] == [str(old.id)]


@pytest.mark.parametrize("why", ["invalid", "length", "empty"])
async def test_a_small_answer_that_failed_is_a_wrong_one(database: Database, why: str) -> None:
    made = decision(model_served="large", escalated=True, escalate_reason=why, valid=True)
    await store(database, made, outcome(made, model="large", score=1.0))
    found = await read_log(database)
    (row,) = found.rows
    assert (row.weak_score, row.strong_score, row.action, row.source) == (0.0, None, Action.SMALL, "cascade")
    assert (row.propensity, found.pairs) == (made.propensity, 0)
    assert row.small_valid is (why != "invalid")
    assert row.choice is not None
    assert (row.choice.reward, row.choice.is_escalated) == (1.0, True)


async def test_an_unsure_answer_counts_as_it_was_judged_and_teaches_no_model_of_answers(database: Database) -> None:
    made = decision(
        model_served="large", escalated=True, escalate_reason="low_confidence", p_right=0.25, logprob_mean=-1.0
    )
    await store(database, made, outcome(made, model="large", score=1.0))
    (row,) = (await read_log(database)).rows
    assert (row.weak_score, row.strong_score, row.source) == (0.25, None, "cascade")
    assert (row.action, row.propensity) == (Action.SMALL, made.propensity)
    assert answer_of(row.outcome()) is None


async def test_where_nobody_judged_it_an_escalation_is_no_row(database: Database) -> None:
    made = decision(model_served="large", escalated=True, escalate_reason="refusal")
    await store(database, made, outcome(made, model="large", score=1.0))
    found = await read_log(database)
    assert (found.rows, found.ungraded) == ([], 1)


async def test_escalations_do_not_make_the_small_model_look_worse_than_it_is(database: Database) -> None:
    """Two thirds of the small answers are right and graded, one third is cut off; the large model is always right."""
    made = [decision() for _ in range(20)]
    made += [decision(model_served="large", escalated=True, escalate_reason="length") for _ in range(10)]
    await store(database, *made, *(outcome(one, score=1.0) for one in made))
    found = await read_log(database)
    assert found.pairs == 0
    assert sorted(row.weak_score for row in found.rows if row.weak_score is not None) == [0.0] * 10 + [1.0] * 20
    assert len({row.weight for row in found.rows}) == 1


async def test_a_score_of_form_alone_gives_way_to_any_other(database: Database) -> None:
    made = decision()
    form = outcome(made, score=1.0, source="schema_valid", weight=1.0, created_at=NOW + timedelta(hours=1))
    grade = await told(database, made, [outcome(made, score=0.0, source="user", weight=0.5, created_at=NOW), form])
    assert (grade.score, grade.source) == (0.0, "user")


async def test_a_score_of_form_makes_no_pair_with_one_of_substance(database: Database) -> None:
    made = decision()
    shadow = [
        outcome(made, model=name, score=1.0, source="schema_valid", shadow=True, keep_prob=0.1)
        for name in ("small", "large")
    ]
    await store(database, made, *shadow)
    found = await read_log(database)
    assert (found.pairs, found.rows[0].weight) == (1, 10.0)
    await store(database, outcome(made, score=0.0, source="user"))
    found = await read_log(database)
    (row,) = found.rows
    assert (row.weak_score, row.strong_score, row.source, found.pairs) == (0.0, None, "user", 0)
    assert row.weight == pytest.approx(1 / 0.95)


async def told(database: Database, made: DecisionRecord, statements: Sequence[OutcomeRecord]) -> Grade:
    """The grade of the small model's answer to this decision."""
    await store(database, made, *statements)
    return (await load_grades(database))[made.id]["small"]


async def test_the_last_word_of_a_source_counts(database: Database) -> None:
    made = decision()
    later = NOW + timedelta(hours=1)
    said = [outcome(made, score=1.0, created_at=later), outcome(made, score=0.0, created_at=NOW)]
    grade = await told(database, made, said)
    assert grade.score == 1.0


async def test_the_weightiest_source_counts_before_the_latest(database: Database) -> None:
    made = decision()
    said = [
        outcome(made, score=1.0, source="human", weight=1.0, created_at=NOW),
        outcome(made, score=0.0, source="judge", weight=0.5, created_at=NOW + timedelta(hours=1)),
    ]
    grade = await told(database, made, said)
    assert (grade.score, grade.source, grade.weight) == (1.0, "human", 1.0)


@pytest.mark.parametrize(("feedback", "score"), [(1, 1.0), (-1, 0.0), (0, None)])
async def test_feedback_is_a_score_where_there_is_no_other(
    database: Database, feedback: int, score: float | None
) -> None:
    made = decision()
    grade = await told(database, made, [outcome(made, feedback=feedback)])
    assert (grade.score, grade.feedback) == (score, feedback)


async def test_a_score_wins_over_feedback(database: Database) -> None:
    made = decision()
    later = NOW + timedelta(hours=1)
    grade = await told(
        database,
        made,
        [outcome(made, score=0.5, source="judge"), outcome(made, feedback=-1, weight=1.0, created_at=later)],
    )
    assert (grade.score, grade.feedback, grade.source) == (0.5, -1, "judge")


async def test_what_another_key_says_does_not_count(database: Database) -> None:
    made, anonymous = decision(), decision(key_id=None)
    await store(database, made, outcome(made, key_id=new_id(), score=1.0), outcome(made, key_id=None, score=1.0))
    await store(database, anonymous, outcome(anonymous, key_id=KEY, score=1.0))
    assert await load_grades(database) == {}
    assert (await told(database, made, [outcome(made, score=0.5)])).score == 0.5
    assert (await told(database, anonymous, [outcome(anonymous, score=0.25)])).score == 0.25


async def test_what_is_said_without_naming_a_model_is_of_the_one_that_answered(database: Database) -> None:
    made = decision(model_served="large")
    await store(database, made, outcome(made, model="", score=1.0))
    assert (await load_grades(database))[made.id].keys() == {"large"}


async def test_what_is_said_of_a_decision_that_is_gone_does_not_count(database: Database) -> None:
    made = decision()
    await store(database, made, outcome(made, score=1.0), outcome(decision(id=uuid.uuid4()), score=1.0))
    async with database.write() as connection:
        await connection.execute(delete(DecisionRow).where(DecisionRow.id == made.id))
    assert await load_grades(database) == {}


async def test_a_client_under_a_graders_name_does_not_hide_how_a_shadow_answer_was_drawn(database: Database) -> None:
    made = decision()
    drawn = [
        outcome(made, model=model, score=0.5, source="command", shadow=True, keep_prob=0.25, tokens=9, created_at=NOW)
        for model in ("small", "large")
    ]
    said = outcome(made, model="small", score=1.0, source="command", created_at=NOW + timedelta(hours=1))
    grade = await told(database, made, [*drawn, said])
    assert (grade.score, grade.shadow, grade.keep_prob, grade.tokens) == (1.0, True, 0.25, 9)
    (row,) = (await read_log(database)).rows
    assert row.weight == pytest.approx(1 / 0.25)


async def test_no_more_than_the_latest_rows_are_read_where_that_is_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_log, "_PAGE", 3)
    made = [decision(created_at=NOW + timedelta(seconds=i)) for i in range(9)]
    await store(database, *made, *(outcome(one, score=1.0) for one in made[:7]))
    found = await read_log(database, most=2)
    assert [row.id for row in found.rows] == [str(one.id) for one in made[5:7]]
    assert found.ungraded == 2, "of what was read"


async def test_a_grade_that_chance_drew_stands_for_those_it_passed_over(database: Database) -> None:
    later = NOW + timedelta(seconds=1)
    small, large = decision(), decision(created_at=later, action="large", model_served="large", propensity=0.05)
    drawn = [outcome(one, score=0.5, source="command", keep_prob=0.1) for one in (small, large)]
    await store(database, small, large, *drawn)
    rows = (await read_log(database)).rows
    assert [row.weight for row in rows] == [pytest.approx(10 / 0.95), pytest.approx(10 * 20)]
    assert [row.choice and (row.choice.propensity, row.choice.graded_prob) for row in rows] == [
        (0.95, 0.1),
        (0.05, 0.1),
    ]


async def test_an_answer_that_a_client_graded_anyway_stands_for_itself(database: Database) -> None:
    made = decision()
    drawn = outcome(made, score=0.5, source="command", keep_prob=0.1, created_at=NOW + timedelta(hours=1))
    grade = await told(database, made, [outcome(made, score=1.0, created_at=NOW), drawn])
    assert (grade.score, grade.keep_prob, grade.graded_prob) == (0.5, 1.0, 1.0)
    (row,) = (await read_log(database)).rows
    assert row.weight == pytest.approx(1 / 0.95)


async def test_a_row_from_an_escalation_stands_for_those_that_chance_left_ungraded(database: Database) -> None:
    made = decision(model_served="large", escalated=True, escalate_reason="invalid")
    await store(database, made, outcome(made, model="large", score=1.0, source="command", keep_prob=0.25))
    (row,) = (await read_log(database)).rows
    assert row.weak_score == 0.0
    assert row.weight == pytest.approx(4.0 / 0.95)


async def test_rare_draws_of_an_answer_are_bounded_as_those_of_the_action_are(database: Database) -> None:
    made = decision(propensity=1e-3)
    await store(database, made, outcome(made, score=1.0, source="command", keep_prob=1e-4))
    assert [row.weight for row in (await read_log(database)).rows] == [MAX_WEIGHT**2]
