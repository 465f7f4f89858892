import numpy as np
import pytest

from router_model.drift import ALARM, MIN_REQUESTS, DriftMonitor, DriftState
from router_model.evidence import Evidence, evidence_of
from router_model.features import Kind, extract_outcome
from router_model.labels import labels_of
from router_model.logistic import Floats
from router_model.model import Predictions
from router_model.options import Action
from router_model.outcomes import Outcome
from router_model.training import train
from tests.router_model.worlds import QUICK, make_outcomes

SMALL, LARGE = Action.SMALL, Action.LARGE


def evidence(n: int = 4_000) -> Evidence:
    """Two kinds of traffic whose ranks differ."""
    rng = np.random.default_rng(0)
    is_code = np.arange(n) % 2 == 0
    scores = rng.normal(0.1, 0.1, n) + 0.3 * is_code
    p = np.full(n, 0.5)
    return evidence_of(
        Predictions(p, p, rng.random(n), scores, None, None),
        rng.integers(0, 2, (n, 2)).astype(float),
        np.arange(n),
        routes=["code" if one else "chat" for one in is_code],
    )


@pytest.fixture
def monitor() -> DriftMonitor:
    known = evidence()
    return DriftMonitor(known, known.held_out.score)


def serve(monitor: DriftMonitor, ranks: Floats, route: str, ood: float = 0.5) -> None:
    for rank in ranks:
        monitor.saw_request(float(rank), float(rank), ood, route)


def test_traffic_like_the_evidence_raises_no_alarm(monitor: DriftMonitor) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        serve(monitor, rng.normal(0.1, 0.1, 250), "chat")
        serve(monitor, rng.normal(0.4, 0.1, 250), "code")
        assert not monitor.state.reasons
    assert all(psi < 0.05 for _, psi in monitor.state.psi)


def rows(n: int, seed: int) -> list[Outcome]:
    return make_outcomes(n, with_state=True, seed=seed)


@pytest.fixture(scope="module", params=[300, 900])
def trained(request: pytest.FixtureRequest) -> tuple[Evidence, Predictions, Floats]:
    """A router's evidence, and what it thinks of new rows of the same world, with both models' scores."""
    known, new = rows(request.param, 1), rows(1_500, 2)
    found = train(known, QUICK)
    labels = labels_of(known)
    evidence = evidence_of(found.held_out, labels.scores, np.arange(len(known)) // 2)
    seen = found.model.predict([extract_outcome(one, Kind.STATE) for one in new])
    return evidence, seen, labels_of(new).scores


@pytest.mark.parametrize("n_runs", [20, pytest.param(100, marks=pytest.mark.full)])
def test_new_rows_of_the_same_world_raise_no_alarm(trained: tuple[Evidence, Predictions, Floats], n_runs: int) -> None:
    """At most one in twenty runs of 2,000 requests, a fourth of them graded, with any alarm at any time.

    The router was trained on few rows, so what it thinks of new ones is a little off.
    """
    known, seen, scores = trained
    alarmed = 0
    for seed in range(n_runs):
        monitor, rng = DriftMonitor(known, known.held_out.score), np.random.default_rng(seed)
        reasons: set[str] = set()
        for i in rng.integers(0, len(scores), 2_000).tolist():
            monitor.saw_request(seen.score[i], seen.score[i], seen.ood[i], "")
            if rng.random() < 0.25:
                monitor.saw_score(SMALL, seen.p_small[i], scores[i, 0])
                monitor.saw_score(LARGE, seen.p_large[i], scores[i, 1])
            reasons.update(monitor.state.reasons)
        alarmed += bool(reasons)
    assert alarmed <= n_runs // 20


@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("n_before", [0, 1_500])
def test_a_shift_of_the_ranks_is_noticed_within_300_requests_however_calm_it_was_before(
    trained: tuple[Evidence, Predictions, Floats], n_before: int, direction: int
) -> None:
    known, seen, _ = trained
    shift = direction * known.held_out.score.std()
    for seed in range(5):
        monitor, rng = DriftMonitor(known, known.held_out.score), np.random.default_rng(seed)
        serve(monitor, rng.choice(seen.score, n_before), "")
        assert not monitor.state.reasons
        serve(monitor, rng.choice(seen.score, 300) + shift, "")
        assert monitor.state.reasons == ("shift:",)


def test_little_evidence_allows_for_its_own_error() -> None:
    """A bias that 200 rows could not have shown is no drift; with 20,000 rows it is."""
    for n, is_drift in ((200, False), (20_000, True)):
        known, rng = evidence(n), np.random.default_rng(3)
        monitor = DriftMonitor(known, known.held_out.score)
        for score in rng.random(2_000) < 0.4:
            monitor.saw_score(SMALL, 0.5, float(score))
        assert bool(monitor.state.reasons) == is_drift


def test_a_shifted_route_alone_loses_its_promise_and_gets_it_back(monitor: DriftMonitor) -> None:
    rng = np.random.default_rng(1)
    serve(monitor, rng.normal(0.4, 0.1, 1_000), "code")
    serve(monitor, rng.normal(0.25, 0.1, 1_000), "chat")
    assert monitor.state.reasons == ("shift:chat",)
    assert monitor.state.concerns("chat")
    assert not monitor.state.concerns("code")
    serve(monitor, rng.normal(0.1, 0.1, 1_000), "chat")
    assert not monitor.state.reasons


def test_another_kind_of_traffic_is_noticed_within_100_requests(monitor: DriftMonitor) -> None:
    serve(monitor, np.random.default_rng(1).normal(0.35, 0.05, MIN_REQUESTS), "chat")
    assert monitor.state.reasons == ("shift:chat",)


def test_short_samples_of_the_same_traffic_raise_no_alarm() -> None:
    known = evidence()
    for seed in range(100):
        monitor, rng = DriftMonitor(known, known.held_out.score), np.random.default_rng(seed)
        for _ in range(4):
            serve(monitor, rng.normal(0.1, 0.1, 50), "chat")
            assert not monitor.state.reasons


def test_a_few_requests_prove_no_shift(monitor: DriftMonitor) -> None:
    serve(monitor, np.full(MIN_REQUESTS - 1, 0.9), "chat")
    assert not monitor.state.reasons


def test_ranks_that_are_only_bounded_are_no_shift(monitor: DriftMonitor) -> None:
    """Clear cases never get a rank: what is known of them is that it lies above the threshold."""
    rng = np.random.default_rng(1)
    for rank in rng.normal(0.1, 0.1, 3_000):
        low, high = (0.15, 1.0) if rank > 0.15 else (rank, rank)
        monitor.saw_request(float(low), float(high), None, "chat")
    assert not monitor.state.reasons
    assert dict(monitor.state.psi)["chat"] < 0.05


def test_many_requests_out_of_domain_alarm(monitor: DriftMonitor) -> None:
    rng = np.random.default_rng(1)
    for i, rank in enumerate(rng.normal(0.1, 0.1, 1_000)):
        monitor.saw_request(float(rank), float(rank), 1.5 if i % 3 == 0 else 0.5, "chat")
    assert monitor.state.reasons == ("out_of_domain",)
    assert monitor.state.concerns("any route")
    serve(monitor, rng.normal(0.1, 0.1, 1_000), "chat")
    assert not monitor.state.reasons


@pytest.mark.parametrize("bias", [-0.2, 0.2])
@pytest.mark.parametrize("action", Action)
def test_probabilities_that_are_off_by_a_fifth_are_noticed_within_250_answers(
    monitor: DriftMonitor, action: Action, bias: float
) -> None:
    rng = np.random.default_rng(2)
    for _ in range(250):
        monitor.saw_score(action, 0.5, float(rng.random() < 0.5 + bias))
    assert monitor.state.reasons == (f"calibration_{action.value}",)
    for _ in range(1_000):
        monitor.saw_score(action, 0.5, float(rng.random() < 0.5))
    assert not monitor.state.reasons


def test_honest_probabilities_hardly_ever_alarm() -> None:
    known = evidence(400)
    alarms = 0
    for seed in range(10):
        monitor, rng = DriftMonitor(known, known.held_out.score), np.random.default_rng(seed)
        for p in rng.random(3_000):
            monitor.saw_score(SMALL, float(p), float(rng.random() < p))
            alarms += bool(monitor.state.reasons)
    assert alarms <= 100
    assert dict(monitor.state.bias)["small"] < ALARM


def test_routes_that_clients_make_up_do_not_fill_the_memory(monitor: DriftMonitor) -> None:
    for i in range(500):
        monitor.saw_request(0.2, 0.2, 0.5, f"route-{i}")
    assert len(monitor._windows) <= 33


def test_a_route_is_told_of_its_own_shift_and_of_what_concerns_all() -> None:
    state = DriftState(reasons=("out_of_domain", "shift:theirs", "shift:own", "shift:"))
    assert state.concerning({"own"}) == ("out_of_domain", "shift:own")
    assert state.concerning({"own", ""}) == ("out_of_domain", "shift:own", "shift:")
    assert DriftState(reasons=("shift:theirs",)).concerning({"own"}) == ()
