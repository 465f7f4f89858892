"""The router's report and its off-policy estimates: right where the truth is known, silent where it is not, and safe to
open in a browser.
"""

import json
import math
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from gateway.reports import facts as facts_module
from gateway.reports import page as page_module
from gateway.reports import svg
from gateway.reports.curve import curve_of
from gateway.reports.facts import Facts, load_facts
from gateway.reports.knowledge import ExploredKnowledge, PairKnowledge, knowledge_of
from gateway.reports.logged import policy_log
from gateway.reports.mix import escalations, exploration, mix, threshold_history
from gateway.reports.other_policies import Reward, standard_candidates, value_policies
from gateway.reports.page import render_page
from gateway.reports.reliability import reliability
from gateway.reports.router_report import InForce, RouterReport, router_report
from gateway.reports.routing import EXPLICIT
from gateway.reports.svg import HEIGHT, WIDTH
from gateway.storage.database import Database
from gateway.storage.grades import Grade, Grades, load_grades
from gateway.storage.identifiers import new_id
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.records import DecisionRecord, KeyRecord, OutcomeRecord
from gateway.storage.sink import SqlRecordSink
from router_model.bundle import bundle
from router_model.candidates import Candidate
from router_model.circumstances import Circumstances
from router_model.facts import RequestFacts
from router_model.features import FEATURE_SCHEMA_VERSION, Kind, extract, extract_outcome
from router_model.off_policy import Unidentifiable
from router_model.options import Action, RouteOptions
from router_model.policy import Policy
from router_model.training import train
from tests.router_model.worlds import make_outcomes

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
IN_FORCE = InForce(policy="state-router-1", artefact_hash="ab" * 32, price_version="2026-11")
EPSILON = 0.1


def grade(score: float, *, shadow: bool = False, keep_prob: float = 1.0, cost_usd: float = 0.0) -> Grade:
    return Grade(
        score=score,
        feedback=None,
        source="test",
        weight=1.0,
        shadow=shadow,
        keep_prob=keep_prob,
        tokens=None,
        cost_usd=cost_usd,
        logprob_mean=None,
        logprob_min=None,
        valid=None,
    )


def fact(i: int = 0, **fields: object) -> Facts:
    """A routed request that went small, with what is asked for."""
    known: dict[str, object] = {
        "id": new_id(),
        "created_at": NOW - timedelta(minutes=100_000 - i),
        "key": None,
        "route": "auto",
        "session_hash": None,
        "artefact_hash": None,
        "features_version": None,
        "eligible": ["small", "large"],
        "p_small": None,
        "p_large": None,
        "score": None,
        "ood_score": None,
        "expected_cost_usd": {},
        "threshold": None,
        "target": "auto",
        "wanted": {},
        "action": "small",
        "reason": "score_below_threshold",
        "propensity": 1.0,
        "keep_prob": 1.0,
        "explored": False,
        "pinned": False,
        "calibrated": True,
        "early": False,
        "overhead_s": 0.0005,
        "model_served": "small",
        "escalated": False,
        "escalate_reason": None,
        "ttft_s": 0.1,
        "itl_s": 0.01,
        "duration_s": 1.0,
        "prompt_tokens": 10,
        "cached_tokens": 5,
        "completion_tokens": 10,
        "cost_usd": 1.0,
        "cost_if_large_usd": 6.0,
        "valid": None,
        "feedback": None,
        "grade": None,
    }
    return Facts(**(known | fields))  # type: ignore[arg-type]


def world(n: int, seed: int, *, with_pairs: bool = False) -> list[Facts]:
    """Decisions at threshold 0.2 with exploration. Small is right with 1 - difficulty, large with 1 - difficulty / 4.

    Small costs 1 and large 6 times the request's size.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        difficulty, size = float(rng.random()), float(rng.exponential())
        p_small, p_large = 1 - difficulty, 1 - difficulty / 4
        scores = float(rng.random() < p_small), float(rng.random() < p_large)
        is_large, explored = p_large - p_small >= 0.2, bool(rng.random() < EPSILON)
        went_large = is_large != explored
        model, score = ("large", scores[1]) if went_large else ("small", scores[0])
        grades = {model: grade(score)}
        if with_pairs:
            other, other_score = ("small", scores[0]) if went_large else ("large", scores[1])
            cost = 1 * size if went_large else 6 * size
            grades[other] = grade(other_score, shadow=True, keep_prob=0.5, cost_usd=cost)
        rows.append(
            fact(
                i,
                action=model,
                model_served=model,
                explored=explored,
                propensity=EPSILON if explored else 1 - EPSILON,
                p_small=p_small,
                p_large=p_large,
                score=p_large - p_small,
                threshold=0.2,
                ood_score=0.5,
                reason="explored" if explored else "score_above_threshold",
                cost_usd=(6 if went_large else 1) * size,
                cost_if_large_usd=6 * size,
                expected_cost_usd={"small": size, "large": 6 * size},
                grades=grades,
            )
        )
    return rows


def made(facts: Sequence[Facts]) -> RouterReport:
    return router_report(facts, IN_FORCE, since=None, until=NOW, scope="all keys")


@pytest.mark.parametrize("with_pairs", [True, False])
def test_the_points_of_the_curve_lie_where_the_world_has_them(with_pairs: bool) -> None:
    known = knowledge_of(world(4_000, 0, with_pairs=with_pairs), np.random.default_rng(0))
    assert isinstance(known, PairKnowledge if with_pairs else ExploredKnowledge)
    curve = curve_of(known)
    assert curve.all_small is not None
    assert curve.all_large is not None
    assert curve.current is not None
    assert curve.random is not None
    # Expectations over difficulty: 1/2 and 7/8; the router takes difficulties above 4/15, but for the explored ones.
    for point, quality, cost in ((curve.all_small, 0.5, 1.0), (curve.all_large, 0.875, 6.0)):
        assert point.lower - 0.01 <= quality <= point.upper + 0.01
        assert point.cost_usd == pytest.approx(cost, rel=0.1)
    share = (1 - EPSILON) * 11 / 15 + EPSILON * 4 / 15
    assert curve.current.large_share == pytest.approx(share, abs=0.03)
    assert curve.current.quality > curve.random.quality
    assert [point.large_share for point in curve.points] == pytest.approx([i / 10 for i in range(11)], abs=0.01)
    assert [point.cost_usd for point in curve.points] == sorted(point.cost_usd for point in curve.points)
    assert (curve.oracle is not None) is with_pairs
    if curve.oracle is not None:
        assert curve.oracle.quality >= max(point.quality for point in curve.points)


def test_savings_stand_beside_quality_against_both_references() -> None:
    report = made(world(3_000, 1, with_pairs=True))
    large, random = report.comparisons
    assert (large.against, random.against) == ("all_large", "matched_random")
    assert large.saving.share is not None
    assert large.saving.share > 0.1
    assert large.quality_difference is not None
    assert large.quality_difference.upper < 0
    # Against random at the same share nothing is saved in this world, where size and difficulty know nothing of each
    # other; but it is better.
    assert random.saving.share == pytest.approx(0, abs=0.03)
    assert random.quality_difference is not None
    assert random.quality_difference.lower > 0
    assert {large.quality_source, random.quality_source} == {"shadow_pairs"}


def test_without_grades_savings_say_that_quality_is_unknown_and_how_to_know_it() -> None:
    report = made([msgspec.structs.replace(one, grades={}) for one in world(300, 2)])
    for one in report.comparisons:
        assert one.quality_difference is None
        assert "/v1/router/outcomes" in one.quality_note
    assert report.curve.source is None
    assert report.curve.note
    assert all(policy.refused for policy in report.other_policies.policies)


def test_too_little_exploration_is_refused_in_words() -> None:
    with pytest.raises(Unidentifiable, match="effective sample size"):
        knowledge_of(world(150, 3), np.random.default_rng(0))


def test_the_policies_values_cover_the_truth() -> None:
    truths = {"all small": 0.5, "all large": 0.875, "as logged": None, "share 0.5": (0.5 + 0.875) / 2}
    covered = 0
    for seed in range(10):
        candidates = [Candidate(model="small"), Candidate(model="large"), Candidate(share=0.5)]
        found = value_policies(
            world(3_000, seed),
            {one.name: one for one in candidates},
            scope="explorable",
            reward=Reward(),
            routers={},
        )
        for one in found.policies:
            truth = truths[one.policy]
            assert one.dr is not None
            assert one.ess is not None
            covered += truth is None or one.dr.lower <= truth <= one.dr.upper
    assert covered >= 36  # of 40, at 95 %


def test_requests_without_alternative_forbid_other_policies_unless_left_out() -> None:
    rows = world(2_000, 4) + [fact(10**4 + i, grades={"small": grade(1.0)}) for i in range(50)]
    both = [
        value_policies(rows, {"large": Candidate(model="large")}, scope=scope, reward=Reward(), routers={})
        for scope in ("all", "explorable")
    ]
    assert "had no alternative" in (both[0].policies[1].refused or "")
    assert both[0].policies[0].refused is None, "the policy that was logged needs no alternative"
    assert both[1].policies[1].dr is not None
    assert [one.fixed for one in both] == [50, 50]
    assert [one.requests for one in both] == [2_050, 2_000]


def test_a_reward_less_cost_prefers_the_small_model_once_cost_weighs_enough() -> None:
    rows = world(3_000, 5)
    candidates = {name: Candidate(model=name) for name in ("small", "large")}  # type: ignore[arg-type]

    def values(reward: Reward) -> dict[str, float]:
        found = value_policies(rows, candidates, scope="all", reward=reward, routers={})
        return {one.policy: one.dr.value for one in found.policies if one.dr is not None}

    plain, dear, cost = values(Reward()), values(Reward(cost_weight=1.0)), values(Reward(kind="cost"))
    assert plain["large"] > plain["small"]
    assert dear["large"] < dear["small"]
    assert cost["large"] / cost["small"] == pytest.approx(6, rel=0.15)
    for name in candidates:
        assert dear[name] == pytest.approx(plain[name] - cost[name], abs=0.15)


def test_a_router_that_never_served_is_valued_by_the_features_that_were_logged() -> None:
    outcomes = make_outcomes(3_600, with_state=True, seed=21)
    trained = outcomes[:600]
    policy = Policy(artefact=bundle(train(trained), trained))
    rng = np.random.default_rng(0)
    rows, wanted = [], []
    for i, one in enumerate(outcomes[600:]):
        went_large = bool(rng.random() < 0.5)
        score = one.strong_score if went_large else one.weak_score
        model = "large" if went_large else "small"
        features = extract_outcome(one, Kind.STATE)
        rows.append(
            fact(
                i,
                action=model,
                model_served=model,
                propensity=0.5,
                grades={model: grade(score)},
                features=features.pack(),
                features_version=str(FEATURE_SCHEMA_VERSION),
            )
        )
        options = RouteOptions(quality=0.95, explore=False)
        decided = policy.decide(features, options, Circumstances(), rng).action
        wanted.append(one.strong_score if decided is Action.LARGE else one.weak_score)
    candidates = {"mine": Candidate(quality=0.95), "it": Candidate(quality=0.95, artefact="ab")}
    found = value_policies(rows, candidates, scope="all", reward=Reward(), routers={"": policy, "ab": policy})
    mine, it = found.policies[1:]
    assert mine.dr == it.dr
    assert mine.dr is not None
    assert mine.dr.lower <= np.mean(wanted) <= mine.dr.upper
    with pytest.raises(ValueError, match="no router is in force"):
        value_policies(rows, candidates, scope="all", reward=Reward(), routers={})
    text = extract("Which way?", RequestFacts()).pack()  # as of decisions before any prefill
    mixed = [
        *rows,
        *(msgspec.structs.replace(one, id=new_id(), features=other) for one in rows[:50] for other in (None, text)),
    ]
    again = value_policies(mixed, candidates, scope="all", reward=Reward(), routers={"": policy, "ab": policy})
    assert 50 <= again.unread <= 100, "of a clear case it can be told, too"
    assert again.requests == len(mixed) - again.unread
    assert again.policies[1].dr is not None
    assert again.policies[1].dr.value == pytest.approx(mine.dr.value, abs=0.03)
    bare = [msgspec.structs.replace(one, features=None) for one in rows]
    found = value_policies(bare, candidates, scope="all", reward=Reward(), routers={"": policy, "ab": policy})
    assert "routing.log_features" in (found.policies[1].refused or "")


def test_an_escalated_answer_is_a_reward_of_the_small_models_decision() -> None:
    one = fact(model_served="large", escalated=True, escalate_reason="invalid", grades={"large": grade(1.0)})
    log = policy_log([one])
    assert not log.went_large[0]
    assert log.score[0] == 1.0
    assert log.cost_usd[0] == one.cost_usd
    counted = escalations([one, fact(), fact(escalate_reason="escalation_limited")])
    assert (counted.small, counted.escalated, counted.rate) == (3, 1, pytest.approx(1 / 3))
    assert (counted.by_reason, counted.prevented) == ({"invalid": 1}, {"escalation_limited": 1})


def test_the_other_models_cost_comes_from_a_shadow_run_then_from_what_was_expected_then_from_the_ratio() -> None:
    large = {"action": "large", "model_served": "large", "cost_usd": 8.0}
    log = policy_log(
        [
            fact(0, cost_usd=2.0, cost_if_large_usd=8.0),
            fact(1, **large, grades={"small": grade(1.0, shadow=True, cost_usd=3.0)}),
            fact(2, **large, expected_cost_usd={"small": 1.5}),
            fact(3, **large),
        ]
    )
    assert log.cost_small_usd[:3].tolist() == [2.0, 3.0, 1.5]
    assert log.cost_small_usd[3] == pytest.approx(8.0 * (2 + 3 + 1.5) / (8 * 3))


def test_every_view_of_the_mix_holds_every_request_once() -> None:
    rows = [*world(500, 6), fact(1, reason=EXPLICIT, route="other", key="someone")]
    for parts in msgspec.structs.astuple(mix(rows)):
        assert sum(part.requests for part in parts) == len(rows)
        assert sum(part.cost_usd for part in parts) == pytest.approx(sum(row.cost_usd for row in rows))
    assert {part.name: part.requests for part in mix(rows).by_key} == {"(none)": 500, "someone": 1}


def test_beyond_fifty_groups_the_rest_is_one_part() -> None:
    parts = mix([fact(i, route=f"route-{i}") for i in range(70)]).by_route
    assert len(parts) == 51
    assert (parts[-1].name, parts[-1].requests) == ("(others)", 20)


def test_the_threshold_history_counts_every_routed_request_that_had_a_threshold() -> None:
    rows = world(500, 7)
    history = threshold_history(rows)
    assert sum(one.requests for one in history) == 500
    assert {(one.target, round(one.threshold, 9)) for one in history} == {("auto", 0.2)}
    assert sum(one.requests * one.large_share for one in history) == pytest.approx(sum(r.went_large for r in rows))
    assert threshold_history([fact(wanted={"quality": 0.9}, threshold=0.1)])[0].target == "quality 0.9"


def test_exploration_is_charged_what_it_cost_and_was_expected_to_lose() -> None:
    rows = world(2_000, 8)
    spent = exploration(rows)
    explored = [row for row in rows if row.explored]
    extra = sum((1 if row.went_large else -1) * 5 * (row.cost_if_large_usd / 6) for row in explored)
    lost = sum((-1 if row.went_large else 1) * ((row.p_large or 0) - (row.p_small or 0)) for row in explored)
    assert spent.explored == len(explored)
    assert spent.extra_cost_usd == pytest.approx(extra)
    assert spent.expected_score_lost == pytest.approx(lost / len(rows))


def test_honest_probabilities_are_found_reliable() -> None:
    small, large = reliability(world(5_000, 9, with_pairs=True))
    for one in (small, large):
        assert one.n == 5_000
        assert one.ece is not None
        assert one.ece < 0.04
        assert sum(each.n for each in one.bins) == one.n
        assert all(abs(each.predicted - each.observed) < 5 * each.error + 0.01 for each in one.bins)
    assert reliability([])[0].ece is None


class Reader(HTMLParser):
    """Collects tags and attributes; fails on tags that do not match."""

    VOID = frozenset({"meta", "circle", "line", "path", "polyline", "polygon", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert(1)</script>\"' onload=x &amp; </svg>"


def evil(one: Facts) -> Facts:
    return msgspec.structs.replace(one, route=EVIL, key=EVIL, reason=EVIL, target=EVIL)


@pytest.mark.parametrize(
    "rows",
    [[], [fact()], world(2_500, 10, with_pairs=True), world(2_500, 10)],
    ids=["none", "one", "pairs", "explored"],
)
def test_the_page_is_well_formed_and_fetches_and_runs_nothing(rows: list[Facts]) -> None:
    report = made([evil(row) for row in rows])
    page = render_page(report)
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert not reader.seen & {"script", "img", "link", "iframe", "object", "image", "use", "foreignobject", "a"}
    names = {name for name, _ in reader.attributes}
    assert not [name for name in names if name.startswith("on") or name in {"href", "src", "srcset", "xlink:href"}]
    assert "url(" not in page
    assert "@import" not in page
    if rows:
        assert EVIL in reader.text.replace("\n", ""), "what clients wrote is shown, as text"
    for part in page.split("<svg")[1:]:
        drawn = ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")  # noqa: S314
        for shape in drawn:
            xs = [float(shape.get(name, 0)) for name in ("cx", "x1", "x2", "x")]
            ys = [float(shape.get(name, 0)) for name in ("cy", "y1", "y2", "y")]
            points = [tuple(map(float, pair.split(","))) for pair in shape.get("points", "").split()]
            assert all(0 <= x <= WIDTH for x in [*xs, *(x for x, _ in points)]), "everything is inside the frame"
            assert all(0 <= y <= HEIGHT for y in [*ys, *(y for _, y in points)])


def test_a_report_is_json_of_its_own_schema() -> None:
    report = made(world(2_500, 11))
    read = json.loads(msgspec.json.encode(report))
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in _leaves(read))
    for part in ("curve", "comparisons", "mix", "escalations", "reliability", "thresholds", "exploration", "speed"):
        assert part in read
    assert read["other_policies"]["policies"][0]["policy"] == "as logged"
    assert set(read["other_policies"]["policies"][1]) >= {"policy", "dr", "snips", "ips", "ess", "refused"}
    assert len(standard_candidates(world(10, 0))) == 7


def _leaves(node: object) -> list[object]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in _leaves(value)]
    return [leaf for value in node for leaf in _leaves(value)] if isinstance(node, list) else [node]


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


def test_a_threshold_is_that_of_the_promise_where_there_was_one() -> None:
    covered, beyond = fact(0, threshold=0.25), fact(1, threshold=-10.0, calibrated=False, action="large")
    (one,) = threshold_history([covered, beyond])
    assert (one.threshold, one.requests, one.calibrated_share, one.large_share) == (0.25, 2, 0.5, 0.5)
    (none,) = threshold_history([beyond])
    assert none.threshold == -10.0


@pytest.mark.parametrize("amount", [0.0, 1234.5, -2.25, 0.0234, 5.382e-6, -5.1e-8])
def test_sums_are_written_without_exponents_to_three_digits(amount: float) -> None:
    text = page_module._usd(amount)
    assert "e" not in text
    assert float(text) == pytest.approx(amount, rel=0.005)


@pytest.mark.parametrize(("low", "high"), [(0.0022, 0.0131), (-0.05, 1.05), (0.229, 0.547), (3e-7, 9e-6), (0, 17_000)])
def test_ticks_are_few_round_numbers_within_the_range(low: float, high: float) -> None:
    ticks = svg._ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert len(set(ticks)) == len(ticks)
    numbers = [float(tick) for tick in ticks]
    assert low <= min(numbers) <= max(numbers) <= high
    steps = np.diff(numbers)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
    assert all(len(tick.strip("-").replace(".", "").strip("0")) <= 3 for tick in ticks)


def test_labels_of_dots_in_one_place_do_not_overlap() -> None:
    chart = svg.Chart([0, 1], [0, 1], x_title="", y_title="", title="")
    for i in range(6):
        chart.mark((0.7 + i / 1000, 0.5), f"policy {i}")
    root = ElementTree.fromstring(chart.svg())  # noqa: S314
    placed = [
        (float(one.attrib["x"]), float(one.attrib["y"]))
        for one in root.iter("text")
        if one.text and "policy" in one.text
    ]
    assert len(placed) == 6
    for i, (x, y) in enumerate(placed):
        assert all(abs(y - other_y) >= 12 or abs(x - other_x) >= 8 * 6.5 for other_x, other_y in placed[:i])


def test_a_refusal_takes_the_place_of_the_numbers_that_it_explains() -> None:
    report = router_report([fact(0)], IN_FORCE, since=None, until=NOW, scope="all keys")
    table = render_page(report).partition("Other policies")[2]
    assert '<td class="text" colspan="4">' in table


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("shift:", "requests are not like those"),
        ("shift:a<b", "of the route a&lt;b"),
        ("out_of_domain", "unlike the training data"),
        ("calibration_small", "the small model&#x27;s answers"),
    ],
)
def test_the_page_says_in_words_why_nothing_is_promised(reason: str, words: str) -> None:
    in_force = msgspec.structs.replace(IN_FORCE, drift=(reason,))
    page = render_page(router_report([], in_force, since=None, until=NOW, scope="all keys"))
    assert words in page
    assert reason not in page
