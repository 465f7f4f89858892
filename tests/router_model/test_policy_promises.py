"""Exploration, and which requests a promise covers."""

from dataclasses import replace

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.circumstances import Circumstances
from router_model.features import Features, Kind, extract_outcome
from router_model.policy import Action, Policy, Reason, RouteOptions
from tests.router_model.policy_worlds import CALM, CASES, LARGE, PRICES, SMALL, priced
from tests.router_model.worlds import make_outcomes


@pytest.mark.parametrize(("options", "circumstances"), CASES.values(), ids=CASES)
def test_logged_propensities_are_the_frequencies_of_actions(
    artefact: RouterArtefact,
    requests: list[Features],
    rng: np.random.Generator,
    options: RouteOptions,
    circumstances: Circumstances,
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.3, prices=PRICES)
    for features in requests[:5]:
        decisions = [policy.decide(features, options, circumstances, rng) for _ in range(400)]
        for action in Action:
            logged = {d.propensity for d in decisions if d.action is action}
            assert len(logged) <= 1
            frequency = np.mean([d.action is action for d in decisions])
            assert frequency == pytest.approx(logged.pop() if logged else 0.0, abs=0.1)
        for decision in decisions:
            assert decision.explored == (decision.reason is Reason.EXPLORED) == (decision.propensity == 0.3)


@pytest.mark.parametrize(
    "name", ["dear for large", "slow small", "pinned small", "pinned large", "tool loop", "one eligible", "all large"]
)
def test_what_binds_a_request_is_never_explored_away(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator, name: str
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.5, prices=PRICES)
    options, circumstances = CASES[name]
    decisions = [policy.decide(features, options, circumstances, rng) for features in requests]
    assert {decision.propensity for decision in decisions if (decision.ood or 0) <= 1} == {1.0}


def test_exploration_can_be_declined_and_has_a_regret_cap(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.5)
    assert all(policy.decide(one, RouteOptions(explore=False), CALM, rng).propensity == 1 for one in requests)
    capped = replace(policy, max_regret=0.1)
    for features in requests:
        decision = capped.decide(features, RouteOptions(), CALM, rng)
        assert (decision.propensity < 1) == (abs(decision.rank - capped.threshold(RouteOptions())) <= 0.1)


def test_an_unfamiliar_request_goes_large_for_quality_and_keeps_its_share_for_cost(
    artefact: RouterArtefact, rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0)
    far = [extract_outcome(one, Kind.STATE) for one in make_outcomes(600, with_state=True, seed=23, is_shifted=True)]
    for options in (RouteOptions(), RouteOptions(target="auto-quality"), RouteOptions(quality=0.5)):
        for features in far[:20]:
            decision = policy.decide(features, options, CALM, rng)
            assert (decision.action, decision.reason) == (LARGE, Reason.OUT_OF_DOMAIN)
            assert not decision.is_calibrated
    for options in (RouteOptions(target="auto-cost"), RouteOptions(cost=0.3)):
        decisions = []
        for features in far:
            decisions.append(policy.decide(features, options, CALM, rng))
            policy.observe(decisions[-1])
        assert not any(decision.is_calibrated for decision in decisions)
        wanted = policy.check(options).share
        assert np.mean([one.action is LARGE for one in decisions]) == pytest.approx(wanted, abs=0.05)


def test_while_drifted_quality_goes_large_and_says_uncalibrated(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0)
    before = [policy.decide(one, RouteOptions(), CALM, rng) for one in requests]
    for decision in before[:100]:
        assert decision.p_small is not None
        policy.monitor.saw_score(SMALL, decision.p_small, 0.0)  # the small model fails at everything of late
    assert policy.monitor.state.reasons == ("calibration_small",)
    for features, old in zip(requests, before, strict=True):
        decision = policy.decide(features, RouteOptions(quality=0.5), CALM, rng)
        assert (decision.action, decision.is_calibrated) == (LARGE, False)
        assert decision.reason is (
            Reason.UNCALIBRATED if old.ood is not None and old.ood <= 1 else Reason.OUT_OF_DOMAIN
        )
        budget = policy.decide(features, RouteOptions(cost=0.5), CALM, rng)
        assert not budget.is_calibrated
    assert policy.decide_early(requests[0], RouteOptions(), CALM, rng) is None
    settled = policy.decide_early(requests[0], RouteOptions(quality=1.0), CALM, rng)
    assert settled is not None
    assert (settled.action, settled.reason, settled.is_calibrated) == (LARGE, Reason.UNCALIBRATED, False)


@pytest.mark.parametrize(
    ("options", "circumstances"),
    [
        (RouteOptions(quality=1.0, max_cost_usd=1e-5), priced()),
        (RouteOptions(quality=1.0, max_ttft_s=0.5), priced(ttft=(0.1, 0.9))),
        (RouteOptions(quality=1.0, pinned=SMALL, in_tool_loop=True), CALM),
        (RouteOptions(quality=1.0, eligible=frozenset({SMALL})), CALM),
        (RouteOptions(target="auto-quality"), priced(pressure=1.0)),
    ],
    ids=["budget", "latency", "tool loop", "one eligible", "overload"],
)
def test_what_the_threshold_wanted_on_the_large_model_is_promised_nothing_on_the_small_one(
    artefact: RouterArtefact,
    requests: list[Features],
    rng: np.random.Generator,
    options: RouteOptions,
    circumstances: Circumstances,
) -> None:
    policy = Policy(artefact=artefact, epsilon=0, prices=PRICES)
    wanted = policy.threshold(options)
    found = [policy.decide(features, options, circumstances, rng) for features in requests]
    assert all(one.action is SMALL for one in found)
    known = [one for one in found if (one.ood or 0) <= 1]
    assert any(one.rank >= wanted for one in known)
    for one in known:
        assert one.is_calibrated == (one.rank < wanted)


def test_chance_takes_a_request_off_its_promise_only_downwards(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.5, max_regret=20.0)
    found = [policy.decide(features, RouteOptions(), CALM, rng) for features in requests]
    explored = [one for one in found if one.explored and (one.ood or 0) <= 1]
    assert {one.action for one in explored} == set(Action)
    assert all(one.is_calibrated == (one.action is LARGE) for one in explored)


def test_where_nothing_is_promised_nothing_is_explored_away_from_the_large_model(
    artefact: RouterArtefact, unfamiliar: Features, rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.5)
    for options in (RouteOptions(), RouteOptions(quality=0.5)):
        found = [policy.decide(unfamiliar, options, CALM, rng) for _ in range(40)]
        assert {(one.action, one.propensity, one.is_calibrated) for one in found} == {(LARGE, 1.0, False)}
    kept = [policy.decide(unfamiliar, RouteOptions(cost=0.7), priced(), rng) for _ in range(40)]
    assert {one.explored for one in kept} == {True, False}  # a wish for a share is kept by control, wherever it lies
