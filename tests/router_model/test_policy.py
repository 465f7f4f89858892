from dataclasses import replace

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.facts import RequestFacts
from router_model.features import Features, Kind, extract, extract_outcome
from router_model.policy import Action, Policy, Reason, RouteOptions, UnknownTarget
from tests.router_model.worlds import make_outcomes

SMALL, LARGE = Action.SMALL, Action.LARGE


@pytest.fixture(scope="module")
def requests() -> list[Features]:
    return [extract_outcome(one, Kind.STATE) for one in make_outcomes(300, with_state=True, seed=21)]


@pytest.fixture(scope="module")
def unfamiliar() -> Features:
    return extract_outcome(make_outcomes(1, with_state=True, seed=22, is_shifted=True)[0], Kind.STATE)


def test_without_exploration_the_threshold_alone_decides(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy = Policy(artefact=artefact, epsilon=0)
    actions = set()
    for features in requests:
        decision = policy.decide(features, RouteOptions(), np.random.default_rng(0))
        assert (decision.propensity, decision.explored) == (1.0, False)
        worth_it = decision.score >= decision.threshold
        assert (decision.action is LARGE) == (worth_it or decision.ood > 1)
        if decision.ood <= 1:
            assert decision.reason is (Reason.WORTH_IT if worth_it else Reason.NOT_WORTH_IT)
            assert decision.score == pytest.approx(decision.p_large - decision.p_small)
        assert decision.expected_small_tokens is not None
        actions.add(decision.action)
    assert actions == {SMALL, LARGE}


def test_logged_propensities_are_the_frequencies_of_actions(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy, rng = Policy(artefact=artefact, epsilon=0.2), np.random.default_rng(0)
    greedy = replace(policy, epsilon=0).decide(requests[0], RouteOptions(), rng).action
    decisions = [policy.decide(requests[0], RouteOptions(), rng) for _ in range(2_000)]
    assert np.mean([d.action is not greedy for d in decisions]) == pytest.approx(0.2, abs=0.03)
    for decision in decisions:
        assert decision.explored == (decision.action is not greedy) == (decision.reason is Reason.EXPLORED)
        assert decision.propensity == (0.2 if decision.explored else 0.8)
    # Importance weights of the policy itself have mean 1 for each action.
    assert np.mean([(d.action is LARGE) / d.propensity for d in decisions]) == pytest.approx(1, abs=0.1)


def test_cheaper_targets_send_less_to_the_large_model(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy, rng = Policy(artefact=artefact, epsilon=0), np.random.default_rng(0)

    def share(options: RouteOptions) -> float:
        return float(np.mean([policy.decide(one, options, rng).action is LARGE for one in requests]))

    targets = [share(RouteOptions(target=name)) for name in ("auto-cost", "auto", "auto-quality")]
    assert targets == sorted(targets)
    assert targets[0] < targets[2]
    assert share(RouteOptions(quality=1.0)) > share(RouteOptions(quality=0.2))
    assert share(RouteOptions(quality=0.8)) == share(RouteOptions(target="auto"))


def test_the_only_eligible_model_is_taken_with_certainty(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy, rng = Policy(artefact=artefact, epsilon=0.5), np.random.default_rng(0)
    for action in Action:
        for features in requests[:20]:
            decision = policy.decide(features, RouteOptions(eligible=frozenset({action})), rng)
            assert (decision.action, decision.reason, decision.propensity) == (action, Reason.ONLY_ELIGIBLE, 1.0)
    with pytest.raises(ValueError, match="no model is eligible"):
        policy.decide(requests[0], RouteOptions(eligible=frozenset()), rng)


def test_a_conversation_may_go_up_but_not_down(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy, rng = Policy(artefact=artefact, epsilon=0.5), np.random.default_rng(0)
    ups = 0
    for features in requests:
        large = policy.decide(features, RouteOptions(pinned=LARGE), rng)
        assert (large.action, large.reason, large.propensity) == (LARGE, Reason.PINNED, 1.0)
        small = policy.decide(features, RouteOptions(pinned=SMALL), rng)
        assert small.propensity == 1.0
        assert (small.action is LARGE) == (small.score >= small.threshold or small.ood > 1)
        assert (small.reason is Reason.PINNED) == (small.action is SMALL)
        ups += small.action is LARGE
    assert 0 < ups < len(requests)


def test_an_unfamiliar_request_goes_large_and_says_so(artefact: RouterArtefact, unfamiliar: Features) -> None:
    policy = Policy(artefact=artefact, epsilon=0)
    for target in ("auto", "auto-cost", "auto-quality"):
        decision = policy.decide(unfamiliar, RouteOptions(target=target), np.random.default_rng(0))
        assert decision.ood > 1
        assert (decision.action, decision.reason) == (LARGE, Reason.OUT_OF_DOMAIN)


def test_exploration_can_be_declined_and_has_a_regret_cap(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy, rng = Policy(artefact=artefact, epsilon=0.5), np.random.default_rng(0)
    assert all(policy.decide(one, RouteOptions(explore=False), rng).propensity == 1 for one in requests)
    capped = replace(policy, max_regret=0.1)
    for features in requests:
        decision = capped.decide(features, RouteOptions(), rng)
        assert (decision.propensity < 1) == (abs(decision.score - decision.threshold) <= 0.1)


def test_options_that_mean_nothing_are_refused(artefact: RouterArtefact, requests: list[Features]) -> None:
    policy, rng = Policy(artefact=artefact), np.random.default_rng(0)
    with pytest.raises(UnknownTarget, match="auto-cost, auto-quality"):
        policy.decide(requests[0], RouteOptions(target="fast"), rng)
    with pytest.raises(ValueError, match="quality target"):
        policy.decide(requests[0], RouteOptions(quality=1.5), rng)
    with pytest.raises(ValueError, match="another kind"):
        policy.decide(extract("hi", RequestFacts()), RouteOptions(), rng)
    with pytest.raises(ValueError, match="epsilon"):
        Policy(artefact=artefact, epsilon=0.6)
    with pytest.raises(ValueError, match="max_regret"):
        Policy(artefact=artefact, max_regret=-1)
