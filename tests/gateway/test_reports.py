"""The routing report adds up, shows no saving without the quality beside it, and says what is an estimate."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.reports.estimate import estimate_saving
from gateway.reports.period import parse_period
from gateway.reports.query import load_requests, routing_report
from gateway.reports.render import render_report
from gateway.reports.routing import EXPLICIT, RoutedRequest, RoutingReport, summarise
from gateway.storage.database import Database
from gateway.storage.identifiers import new_id
from gateway.storage.records import DecisionRecord, RequestRecord
from gateway.storage.sink import SqlRecordSink

UNTIL = datetime(2026, 11, 20, tzinfo=UTC)
costs = st.integers(0, 10**7).map(lambda n: n / 1e6)
requests = st.builds(
    RoutedRequest,
    model=st.sampled_from(["small", "large"]),
    reason=st.sampled_from(["score", "only_eligible", EXPLICIT]),
    explored=st.booleans(),
    escalated=st.booleans(),
    calibrated=st.booleans(),
    early=st.booleans(),
    prompt_tokens=st.integers(0, 1000),
    completion_tokens=st.integers(0, 1000),
    drafted_tokens=st.integers(500, 1000) | st.just(0),
    cost_usd=costs,
    cost_if_large_usd=costs,
    ttft_s=st.none() | st.floats(0, 10),
    valid=st.none() | st.booleans(),
    feedback=st.none() | st.sampled_from([-1, 0, 1]),
    grade=st.none() | st.floats(0, 1),
)


def report(rows: list[RoutedRequest]) -> RoutingReport:
    return summarise(rows, since=None, until=UNTIL)


@given(st.lists(requests, max_size=20))
@settings(max_examples=60)
def test_groups_add_up_to_what_was_routed(rows: list[RoutedRequest]) -> None:
    made = report(rows)
    routed = [row for row in rows if row.reason != EXPLICIT]
    assert made.total.requests == len(routed) == sum(group.requests for group in made.by_model)
    assert sum(group.requests for group in made.by_reason) == len(rows)
    if routed:
        assert sum(group.share or 0 for group in made.by_model) == pytest.approx(1)
        assert sum(group.share or 0 for group in made.by_reason) == pytest.approx(1)
    for field in ("prompt_tokens", "completion_tokens", "drafted_tokens", "explored", "escalated", "early"):
        assert sum(getattr(group, field) for group in made.by_model) == sum(getattr(row, field) for row in routed)
    assert made.total.uncalibrated == sum(not row.calibrated for row in routed)
    saving = made.total.saving
    assert saving.cost_usd == pytest.approx(sum(row.cost_usd for row in routed))
    assert saving.saved_usd == pytest.approx(sum(row.cost_if_large_usd - row.cost_usd for row in routed), abs=1e-9)


@given(st.lists(requests, max_size=12))
@settings(max_examples=60)
def test_quality_is_unknown_exactly_where_nothing_was_measured(rows: list[RoutedRequest]) -> None:
    for group in [*report(rows).by_reason, report(rows).total]:
        members = [
            row for row in rows if row.reason == group.name or (group.name == "total" and row.reason != EXPLICIT)
        ]
        measured = [row for row in members if (row.valid, row.feedback, row.grade) != (None, None, None)]
        assert (group.quality.summary == "unknown") is not bool(measured)
        assert group.quality.invalid == sum(row.valid is False for row in members)


@given(st.lists(requests, max_size=12))
@settings(max_examples=40)
def test_no_rendering_shows_a_saving_without_the_quality(rows: list[RoutedRequest]) -> None:
    made = report(rows)
    groups = [*made.by_model, made.total, *made.by_reason]
    read = list(csv.DictReader(io.StringIO(render_report(made, "csv"))))
    by_csv = [row for row in read if row["section"] != "note"]
    assert [row["name"] for row in by_csv] == [group.name for group in groups]
    assert [row["quality_summary"] for row in by_csv] == [group.quality.summary for group in groups]
    assert [row["name"] for row in read if row["section"] == "note"] == made.notes
    decoded = msgspec.json.decode(render_report(made, "json"), type=RoutingReport)
    assert decoded == made
    table = render_report(made, "table", width=220)
    if not rows:
        assert "No requests" in table
        return
    for header in (line for line in table.splitlines() if "saved" in line and "requests" in line):
        assert "quality" in header
    for group in groups:
        lines = [line for line in table.splitlines() if line.strip().startswith(f"{group.name} ")]
        assert any(line.rstrip().endswith(group.quality.summary) for line in lines)
    for note in made.notes:
        assert note in table


def test_the_acceptance_is_that_of_all_drafted_tokens_and_unknown_without_any() -> None:
    rows = [
        RoutedRequest(model="large", reason="score", drafted_tokens=10, accepted_tokens=9),
        RoutedRequest(model="large", reason="score", drafted_tokens=30, accepted_tokens=1),
        RoutedRequest(model="small", reason="score"),
    ]
    made = report(rows)
    large, small = made.by_model
    assert (large.acceptance, small.acceptance, made.total.acceptance) == (0.25, None, 0.25)
    lines = [[cell.strip() for cell in re.split("[│┃]", line)] for line in render_report(made).splitlines()]
    column = next(line for line in lines if line[0] == "model").index("drafts")
    assert next(line for line in lines if line[0] == "large")[column] == "25%"
    assert next(line for line in lines if line[0] == "small")[column] == "–"


def test_the_notes_say_what_is_an_estimate_and_what_is_not_known() -> None:
    small = RoutedRequest(model="small", reason="score", cost_usd=1, cost_if_large_usd=6)
    large = RoutedRequest(model="large", reason="score", cost_usd=7, cost_if_large_usd=6)
    named = RoutedRequest(model="small", reason=EXPLICIT, cost_usd=1, cost_if_large_usd=6)
    notes = " ".join(report([small, large, named]).notes)
    assert "estimate where the small model answered" in notes
    assert "Nothing was measured of the quality" in notes
    assert "2 requests are too few" in notes
    assert "1 requests named their model" in notes
    assert "estimate" not in " ".join(report([large]).notes)
    assert report([]).notes == []


@given(st.lists(st.tuples(costs, costs), min_size=2, max_size=60))
def test_the_interval_holds_the_range_of_single_requests(pairs: list[tuple[float, float]]) -> None:
    saving = estimate_saving(*zip(*pairs, strict=True))
    if saving.share is None:
        assert sum(large for _, large in pairs) == 0
        return
    assert saving.low is not None
    assert saving.high is not None
    assert saving.low <= saving.high
    if all(large > 1e-6 for _, large in pairs):
        shares = [1 - cost / large for cost, large in pairs]
        slack = 1e-6 * max(map(abs, shares), default=0) + 1e-9
        assert min(shares) - slack <= saving.low
        assert saving.high <= max(shares) + slack


def test_identical_requests_leave_no_doubt() -> None:
    saving = estimate_saving([1.0] * 50, [4.0] * 50)
    assert (saving.share, saving.low, saving.high) == (0.75, 0.75, 0.75)


def test_one_request_has_no_interval_and_none_no_share() -> None:
    assert estimate_saving([1.0], [2.0]).low is None
    assert estimate_saving([], []).share is None


@pytest.mark.parametrize("n", [40, 2000])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(100):
        goes_small = rng.random(n) < 0.5
        tokens = rng.exponential(100, n)
        cost = np.where(goes_small, 1.0, 6.5) * tokens
        saving = estimate_saving(cost.tolist(), (6.0 * tokens).tolist(), seed=seed)
        truth = 1 - (0.5 * 1.0 + 0.5 * 6.5) / 6.0
        assert saving.low is not None
        assert saving.high is not None
        covered += saving.low <= truth <= saving.high
    assert covered >= 85


def decision(model: str | None, at: datetime, **fields: object) -> DecisionRecord:
    known: dict[str, object] = {
        "request_id": new_id(),
        "created_at": at,
        "policy": "learned",
        "eligible": ["small", "large"],
        "action": model or "small",
        "reason": "score",
        "model_served": model,
    }
    return DecisionRecord(**(known | fields))  # type: ignore[arg-type]


async def test_the_report_reads_the_period_from_the_database(database: Database) -> None:
    now = datetime.now(UTC)
    await SqlRecordSink(database).insert(
        [
            decision("small", now - timedelta(hours=1), cost_usd=1.0, cost_if_large_usd=6.0, ttft_s=0.1, valid=True),
            decision("large", now - timedelta(hours=2), cost_usd=7.0, cost_if_large_usd=6.0, escalated=True, grade=0.5),
            decision("small", now - timedelta(days=3), reason=EXPLICIT, feedback=-1),
            decision(None, now - timedelta(hours=1)),
            decision("small", now - timedelta(hours=1), shadow=True),
        ]
    )
    recent = await routing_report(database, timedelta(days=1))
    assert (recent.total.requests, recent.total.escalated) == (2, 1)
    assert recent.total.saving.saved_usd == pytest.approx(4.0)
    assert {group.name: group.share for group in recent.by_model} == {"small": 0.5, "large": 0.5}
    everything = await routing_report(database)
    assert {group.name: group.requests for group in everything.by_reason} == {"score": 2, EXPLICIT: 1}
    rows = await load_requests(database, None, now)
    assert sorted(rows, key=lambda row: row.cost_usd)[1:] == [
        RoutedRequest(model="small", reason="score", cost_usd=1.0, cost_if_large_usd=6.0, ttft_s=0.1, valid=True),
        RoutedRequest(model="large", reason="score", cost_usd=7.0, cost_if_large_usd=6.0, escalated=True, grade=0.5),
    ]


async def test_drafts_come_from_the_requests_record_which_may_be_late(database: Database) -> None:
    now = datetime.now(UTC)
    known, late = new_id(), new_id()
    request = RequestRecord(id=known, endpoint="x", model_requested="auto", status=200, drafted_tokens=8)
    await SqlRecordSink(database).insert(
        [
            decision("large", now - timedelta(hours=1), request_id=known),
            decision("large", now - timedelta(hours=1), request_id=late),
            msgspec.structs.replace(request, accepted_tokens=6),
        ]
    )
    total = (await routing_report(database)).total
    assert (total.requests, total.drafted_tokens, total.accepted_tokens, total.acceptance) == (2, 8, 6, 0.75)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", timedelta(minutes=90)), ("24h", timedelta(days=1)), (" 7d ", timedelta(7)), ("2w", timedelta(14))],
)
def test_periods_are_read(text: str, expected: timedelta) -> None:
    assert parse_period(text) == expected


@given(st.text(max_size=6))
def test_other_text_is_no_period_or_a_positive_one(text: str) -> None:
    try:
        period = parse_period(text)
    except ValueError as error:
        assert "such as 24h" in str(error)  # noqa: PT017
    else:
        assert period > timedelta(0)
