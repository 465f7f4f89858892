"""Metrics say what the records say, under names that dashboards know."""

import asyncio
import functools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from engine.request import EngineDied, RequestTimeline
from engine.speculation.proposer import Source
from engine.stats import Counters
from engine.supervision import RestartPolicy
from gateway.drain import Drain
from gateway.prices import bundled_prices
from gateway.routing.grade_book import GradeBook, Origin, Prediction
from gateway.routing.grading import FormGrader
from gateway.routing.live_grading import GradingCounts, LiveGrading
from gateway.routing.live_shadow import LiveShadow, ShadowCounts
from gateway.routing.offers import Offers
from gateway.routing.router import Router
from gateway.settings import RoutingSettings
from gateway.storage.identifiers import new_id
from gateway.storage.records import DecisionRecord, OutcomeRecord, RequestRecord, Timing
from gateway.storage.write_behind import WriteBehindStats
from gateway.telemetry import semconv
from gateway.telemetry.engine_life import EngineLifeCollector
from gateway.telemetry.learning_metrics import LearningCollector
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.router_metrics import RouterCollector
from router_model.artefact import RouterArtefact
from router_model.bundle import bundle
from router_model.policy import Policy
from router_model.training import train
from tests.engine.mortal import settle, started
from tests.gateway.live_world import World
from tests.router_model.worlds import QUICK, make_outcomes


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def total(metrics: Metrics, name: str) -> float:
    return sum(value for (found, _), value in samples(metrics).items() if found == name)


records = st.builds(
    RequestRecord,
    endpoint=st.just("/v1/chat/completions"),
    model_requested=st.text(max_size=5),
    model_served=st.sampled_from([None, "small", "large"]),
    status=st.sampled_from([200, 400, 503]),
    valid=st.none() | st.booleans(),
    prompt_tokens=st.integers(0, 1000),
    cached_tokens=st.integers(0, 1000),
    completion_tokens=st.integers(0, 1000),
    compile_s=st.none() | st.floats(0, 2),
    timing=st.builds(Timing, ttft_s=st.none() | st.floats(0, 9), queue_s=st.none() | st.floats(0, 9)),
    duration_s=st.floats(0, 100),
    cost_usd=st.floats(0.5, 1),
    cost_route_usd=st.floats(0, 0.1),
    cost_draft_usd=st.floats(0, 0.1),
)


@given(st.lists(records, max_size=12))
@settings(max_examples=20)
def test_sums_are_those_of_the_records(rows: list[RequestRecord]) -> None:
    metrics = Metrics()
    for row in rows:
        metrics.observe_request(row)
    served = [row for row in rows if row.model_served is not None]
    assert total(metrics, "pointsman_requests_total") == len(rows)
    assert total(metrics, "pointsman_prompt_tokens_total") == sum(row.prompt_tokens for row in served)
    assert total(metrics, "pointsman_generation_tokens_total") == sum(row.completion_tokens for row in served)
    assert total(metrics, "pointsman_cost_usd_total") == pytest.approx(sum(row.cost_usd for row in served))
    assert total(metrics, "pointsman_invalid_answers_total") == sum(row.valid is False for row in served)
    with_first = [row for row in served if row.timing.ttft_s is not None]
    assert total(metrics, "pointsman_time_to_first_token_seconds_count") == len(with_first)
    assert total(metrics, "pointsman_e2e_request_latency_seconds_count") == len(served)


def test_times_between_tokens_are_counted_one_by_one() -> None:
    metrics = Metrics()
    row = RequestRecord(endpoint="x", model_requested="auto", model_served="small", status=200)
    metrics.observe_request(row, [RequestTimeline(token_times_s=[1.0, 1.0015, 1.1]), RequestTimeline()])
    found = samples(metrics)
    labels = (("model", "small"),)
    assert found["pointsman_inter_token_latency_seconds_count", labels] == 2
    assert found["pointsman_inter_token_latency_seconds_bucket", (("le", "0.002"), *labels)] == 1
    assert found["pointsman_inter_token_latency_seconds_sum", labels] == pytest.approx(0.1)


def test_decisions_are_counted_by_choice_and_reason() -> None:
    metrics = Metrics()
    for action, reason, escalated in [("small", "score", False), ("small", "score", True), ("large", "ood", False)]:
        metrics.observe_decision(
            DecisionRecord(
                request_id=new_id(),
                policy="learned",
                eligible=["small", "large"],
                action=action,
                reason=reason,
                escalated=escalated,
                escalate_reason="invalid" if escalated else None,
                overhead_s=0.0004,
            )
        )
    found = samples(metrics)
    assert found["pointsman_decisions_total", (("choice", "small"), ("reason", "score"))] == 2
    assert found["pointsman_decisions_total", (("choice", "large"), ("reason", "ood"))] == 1
    assert found["pointsman_escalations_total", (("reason", "invalid"),)] == 1
    assert found["pointsman_router_overhead_seconds_bucket", (("le", "0.0005"),)] == 3


def test_realised_shares_and_missing_promises_are_counted_by_target() -> None:
    metrics = Metrics()
    for action, target, calibrated in [
        ("large", "auto", True),
        ("small", "auto", False),
        ("small", "auto", True),
        ("small", "auto", True),
        ("large", "auto-cost", False),
        ("large", None, True),  # named by the request, so nobody chose
    ]:
        metrics.observe_decision(
            DecisionRecord(
                request_id=new_id(),
                policy="learned",
                eligible=["small", "large"],
                action=action,
                reason="score",
                target=target,
                calibrated=calibrated,
            )
        )
    found = samples(metrics)
    shares = {labels: value for (name, labels), value in found.items() if name == "pointsman_large_share"}
    assert shares == {(("target", "auto"),): 0.25, (("target", "auto-cost"),): 1.0}
    assert found["pointsman_uncalibrated_decisions_total", (("target", "auto"),)] == 1
    assert found["pointsman_uncalibrated_decisions_total", (("target", "auto-cost"),)] == 1


def test_predicted_times_are_compared_with_those_of_the_model_that_was_predicted() -> None:
    metrics = Metrics()
    for served, ttft_s, expected in [
        ("small", 0.3, {"small": 0.2, "large": 9.0}),
        ("large", 0.3, {"small": 0.2}),  # escalated: another model's time
        ("small", None, {"small": 0.2}),
        ("small", 0.3, {}),
    ]:
        metrics.observe_decision(
            DecisionRecord(
                request_id=new_id(),
                policy="learned",
                eligible=["small", "large"],
                action="small",
                reason="score",
                model_served=served,
                ttft_s=ttft_s,
                expected_ttft_s=expected,
            )
        )
    found = samples(metrics)
    name, labels = "pointsman_time_to_first_token_prediction_ratio", (("model", "small"),)
    assert found[f"{name}_count", labels] == 1
    assert found[f"{name}_sum", labels] == pytest.approx(1.5)


def test_engine_numbers_carry_the_names_of_vllm_where_it_has_one() -> None:
    metrics = Metrics()
    metrics.update_engine(
        {
            "small": {
                "running_now": 3,
                "prefix_hits": 7,
                "forward_s": 1.5,
                "steps": 9,
                "fingerprint": "x",
                "ready": True,
            },
            "large": {"running_now": 0, "kv_blocks_used_now": 5, "kv_blocks_total": 20, "queue_s_now": 0.5},
        }
    )
    found = samples(metrics)
    small, large = (("model", "small"),), (("model", "large"),)
    assert found["pointsman_num_requests_running", small] == 3
    assert found["pointsman_num_requests_running", large] == 0
    assert found["pointsman_kv_cache_usage_perc", large] == 0.25
    assert found["pointsman_engine_kv_blocks", large] == 20
    assert found["pointsman_engine_queue_seconds", large] == 0.5
    assert found["pointsman_prefix_cache_hits_total", small] == 7
    assert found["pointsman_engine_forward_seconds_total", small] == 1.5
    assert found["pointsman_engine_steps_total", small] == 9
    assert not [name for name, _ in found if "fingerprint" in name or "ready" in name]


def test_drafts_are_counted_by_model_and_proposer() -> None:
    counters, metrics = Counters(), Metrics()
    counters.note_draft(Source.NGRAM, 5, 3)
    counters.note_draft(Source.DRAFT_MODEL, 8, 6)
    counters.draft_rounds, counters.draft_s, counters.tokens_forced = 4, 0.25, 2
    metrics.update_engine({"large": counters.snapshot(), "small": Counters().snapshot()})
    found = samples(metrics)
    assert len([0 for name, _ in found if name == "pointsman_draft_tokens_total"]) == 2 * len(Source)
    for model, proposer, numbers in [
        ("large", "ngram", (5, 3, 2)),
        ("large", "draft_model", (8, 6, 2)),
        ("large", "prediction", (0, 0, 0)),
        ("small", "ngram", (0, 0, 0)),
    ]:
        labels = (("model", model), ("proposer", proposer))
        names = ("draft_tokens", "accepted_draft_tokens", "wasted_draft_tokens")
        assert tuple(found[f"pointsman_{name}_total", labels] for name in names) == numbers
    large = (("model", "large"),)
    assert found["pointsman_spec_decode_num_draft_tokens_total", large] == 13
    assert found["pointsman_spec_decode_num_accepted_tokens_total", large] == 9
    assert found["pointsman_engine_tokens_forced_total", large] == 2
    assert found["pointsman_engine_draft_rounds_total", large] == 4
    assert found["pointsman_engine_draft_seconds_total", large] == 0.25
    assert not [name for name, _ in found if "ngram" in name], "a source is a label, never a part of a name"


def test_lost_rows_and_the_spool_are_visible() -> None:
    metrics = Metrics()
    stats = WriteBehindStats()
    metrics.watch_writes(lambda: (stats, 4096))
    stats.lost = 2
    assert total(metrics, "pointsman_rows_lost_total") == 2
    assert total(metrics, "pointsman_spool_bytes") == 4096


def test_two_gateways_in_one_process_do_not_share_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.observe_request(RequestRecord(endpoint="x", model_requested="auto", status=200))
    assert total(first, "pointsman_requests_total") == 1
    assert total(second, "pointsman_requests_total") == 0


def test_what_a_client_wrote_is_no_label() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.observe_request(
            RequestRecord(endpoint="x", model_requested=f"model-{number}", status=404, user=f"user-{number}")
        )
    text = metrics.render().decode()
    assert "model-" not in text
    assert "user-" not in text


async def test_the_life_of_the_engine_is_visible() -> None:
    transport, client = await started(RestartPolicy(first_s=60.0, max_s=60.0))
    drain, metrics = Drain(0.0), Metrics()
    metrics.watch(EngineLifeCollector(client, drain))
    assert total(metrics, "pointsman_engine_up") == 1
    assert total(metrics, "pointsman_engine_last_death_timestamp_seconds") == 0
    with drain.request():
        asking = asyncio.create_task(client.stats())
        await settle()
        assert total(metrics, "pointsman_requests_in_flight") == total(metrics, "pointsman_engine_calls") == 1
    transport.silent_s = 0.5
    assert total(metrics, "pointsman_engine_heartbeat_age_seconds") == 0.5
    transport.die()
    with pytest.raises(EngineDied):
        await asking
    found = samples(metrics)
    assert found["pointsman_engine_last_death_timestamp_seconds", (("cause", "SIGKILL"),)] == pytest.approx(
        time.time(), abs=60
    )
    assert total(metrics, "pointsman_engine_up") == total(metrics, "pointsman_engine_calls") == 0
    assert total(metrics, "pointsman_engine_restarts_total") == 0
    await client.close()


@functools.cache
def trained(seed: int = 0) -> RouterArtefact:
    outcomes = make_outcomes(200, with_state=False, seed=seed)
    return bundle(train(outcomes, QUICK), outcomes)


def watch_learning(
    metrics: Metrics, world: World, policy: Policy | None
) -> tuple[Router, GradeBook, LiveShadow, LiveGrading]:
    """The parts that learn from traffic, none of them started."""
    prices, rng, routing = bundled_prices(), np.random.default_rng(0), RoutingSettings()
    router = Router(world.engine, policy, routing, rng, Offers(world.catalogue, prices, world.load))
    grades = GradeBook(world.kept, router.graded)
    shadow = LiveShadow(world.engine, world.catalogue, world.load, grades, FormGrader(), prices, rng)
    grading = LiveGrading(FormGrader(), grades, rng)
    metrics.watch(RouterCollector(router, grades))
    metrics.watch(LearningCollector(grades, shadow, grading))
    return router, grades, shadow, grading


async def test_what_was_learned_from_traffic_is_counted_by_its_state(world: World) -> None:
    metrics = Metrics()
    _, grades, shadow, grading = watch_learning(metrics, world, None)
    shadow.counts = ShadowCounts(
        drawn=31, answered=16, ungraded=1, failed=2, dropped=4, abandoned=8, gave_way=99, cost_usd=0.5
    )
    grading.counts = GradingCounts(drawn=10, done=3, failed=2, dropped=5)
    for source in ("client", "me", "myself"):
        record = OutcomeRecord(decision_id=new_id(), model="small", score=1.0, source=source)
        grades.put(record, Origin.API, None)
    found = samples(metrics)
    pairs = {labels[0][1]: value for (name, labels), value in found.items() if name == "pointsman_shadow_pairs_total"}
    assert pairs == {"drawn": 31, "done": 15, "failed": 3, "skipped": 12}
    live = {labels[0][1]: value for (name, labels), value in found.items() if name == "pointsman_live_grades_total"}
    assert live == {"drawn": 10, "done": 3, "failed": 2, "dropped": 5}
    told = {labels: value for (name, labels), value in found.items() if name == "pointsman_outcomes_total"}
    assert told == {(("origin", "api"), ("source", "client")): 1, (("origin", "api"), ("source", "other")): 2}
    assert total(metrics, "pointsman_shadow_cost_usd_total") == 0.5


async def test_the_state_of_the_router_in_force_is_shown_and_no_route_is_named(world: World) -> None:
    metrics = Metrics()
    artefact = trained()
    router, grades, *_ = watch_learning(metrics, world, None)
    assert not [name for name, _ in samples(metrics) if name.startswith("pointsman_router_d")], "there is none"
    router.use(policy := Policy(artefact=artefact))
    drift = "pointsman_router_drift"
    assert total(metrics, drift) == 0
    assert total(metrics, "pointsman_router_shifted_routes") == 0
    for _ in range(200):
        policy.monitor.saw_request(9.0, 9.0, 1e9, "secret-project")
        record = OutcomeRecord(decision_id=new_id(), model="small", score=0.0, source="client")
        grades.put(record, Origin.API, Prediction(artefact.hash, 0.75))
    found = samples(metrics)
    assert found[drift, (("reason", "calibration_small"),)] == found[drift, (("reason", "out_of_domain"),)] == 1
    assert found[drift, (("reason", "calibration_large"),)] == 0
    assert total(metrics, "pointsman_router_shifted_routes") == 1
    assert total(metrics, "pointsman_router_out_of_domain_share") == 1
    assert "secret-project" not in metrics.render().decode()
    errors = {labels: value for (name, labels), value in found.items() if name == "pointsman_router_calibration_error"}
    assert errors == {(("model", "small"),): pytest.approx(0.75)}
    router.use(Policy(artefact=trained(seed=1)))
    assert total(metrics, drift) == 0, "what was wrong with another router is not told of this one"
    assert not [name for name, _ in samples(metrics) if "calibration_error" in name]


async def test_every_metric_has_our_prefix(world: World) -> None:
    metrics = Metrics()
    watch_learning(metrics, world, Policy(artefact=trained()))
    transport, client = await started(RestartPolicy(first_s=60.0, max_s=60.0))
    transport.silent_s = 0.5
    transport.die()
    metrics.watch(EngineLifeCollector(client, Drain(0.0)))
    metrics.update_engine({"small": Counters().snapshot()})
    metrics.watch_writes(lambda: (WriteBehindStats(), 0))
    families = list(text_string_to_metric_families(metrics.render().decode()))
    declared = {value for name, value in vars(semconv).items() if name.startswith("METRIC_")}
    exposed = {family.name for family in families if not family.name.endswith("_created")}
    assert all(name.startswith("pointsman_") for name in exposed)
    assert declared - {semconv.METRIC_ENGINE_PREFIX} <= exposed
    assert metrics.content_type.startswith("text/plain")
    await client.close()
