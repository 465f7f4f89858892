import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.circumstances import Circumstances, Offer
from router_model.facts import RequestFacts
from router_model.features import Features, extract
from router_model.options import QualityScale
from router_model.policy import Action, ConflictingWish, Decision, Policy, Reason, RouteOptions, UnknownTarget
from tests.router_model.policy_worlds import CALM, LARGE, PRICES, SMALL, priced


class FrontStub:
    """Bounds that a test chooses."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def bounds(self, _: Features) -> tuple[float, float]:
        return self.low, self.high


def with_front(policy: Policy, low: float, high: float) -> Policy:
    return replace(policy, artefact=replace(policy.artefact, front=FrontStub(low, high)))  # type: ignore[arg-type]


def test_without_exploration_the_threshold_alone_decides(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0)
    actions = set()
    for features in requests:
        decision = policy.decide(features, RouteOptions(), CALM, rng)
        assert (decision.propensity, decision.explored, decision.is_early) == (1.0, False, False)
        assert decision.ood is not None
        worth_it = decision.rank >= decision.threshold
        assert (decision.action is LARGE) == worth_it
        assert decision.rank == decision.score
        if decision.ood <= 1:
            assert decision.threshold == policy.threshold(RouteOptions())
            assert decision.reason is (Reason.WORTH_IT if worth_it else Reason.NOT_WORTH_IT)
            assert decision.p_large is not None
            assert decision.p_small is not None
            assert decision.score == pytest.approx(decision.p_large - decision.p_small)
        actions.add(decision.action)
    assert actions == {SMALL, LARGE}


def test_a_higher_wish_sends_more_to_the_large_model(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0)

    def share(options: RouteOptions) -> float:
        return float(np.mean([policy.decide(one, options, CALM, rng).action is LARGE for one in requests]))

    rising = [RouteOptions(quality=q, quality_scale=QualityScale.GAP) for q in (0.2, 0.5, 0.8, 0.95, 1.0)]
    shares = [share(options) for options in rising]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1.0
    assert share(RouteOptions(target="auto")) == share(rising[2])
    budgets = [share(RouteOptions(cost=c)) for c in (0.1, 0.4, 0.8)]
    assert budgets == sorted(budgets)
    assert budgets[0] < budgets[-1]


def test_quality_and_cost_that_exclude_each_other_are_refused_before_anything_is_computed(
    artefact: RouterArtefact,
) -> None:
    policy = Policy(artefact=artefact, prices=PRICES)
    needs = policy.check(RouteOptions(quality=0.95))
    assert policy.check(RouteOptions(quality=0.95, cost=min(needs.cost_upper + 1e-6, 1.0))) == needs
    with pytest.raises(ConflictingWish, match="ask for less quality, or allow more cost"):
        policy.check(RouteOptions(quality=0.95, cost=needs.cost_upper - 0.01))
    with pytest.raises(ConflictingWish, match="small model alone costs"):
        policy.check(RouteOptions(cost=0.01))


def test_the_only_eligible_model_is_taken_with_certainty(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.5)
    for action, features in itertools.product(Action, requests[:20]):
        decision = policy.decide(features, RouteOptions(eligible=frozenset({action})), CALM, rng)
        assert (decision.action, decision.reason, decision.propensity) == (action, Reason.ONLY_ELIGIBLE, 1.0)
    only = RouteOptions(eligible=frozenset({LARGE}), max_cost_usd=1e-7)
    dear = policy.decide(requests[0], only, priced(), rng)
    assert (dear.action, dear.exceeds) == (LARGE, (Reason.OVER_BUDGET,))
    with pytest.raises(ValueError, match="no model is eligible"):
        policy.decide(requests[0], RouteOptions(eligible=frozenset()), CALM, rng)


def test_a_conversation_goes_up_at_any_time_and_never_changes_in_a_tool_loop(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy, ups = Policy(artefact=artefact, epsilon=0.5), 0
    for features in requests:
        free = replace(policy, epsilon=0).decide(features, RouteOptions(), CALM, rng)
        small = policy.decide(features, RouteOptions(pinned=SMALL), CALM, rng)
        assert (small.action, small.propensity) == (free.action, 1.0)
        assert (small.reason is Reason.PINNED) == (small.action is SMALL)
        ups += small.action is LARGE
        for pinned in Action:
            kept = policy.decide(features, RouteOptions(pinned=pinned, in_tool_loop=True), priced(), rng)
            assert (kept.action, kept.reason, kept.propensity) == (pinned, Reason.PINNED, 1.0)
    assert 0 < ups < len(requests)


def test_a_conversation_goes_down_only_for_more_than_its_lost_prefix_costs(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy, downs = Policy(artefact=artefact, epsilon=0, prices=PRICES), 0
    for features in requests:
        free = policy.decide(features, RouteOptions(), priced(), rng)
        assert free.expected_cost_usd is not None
        saving = free.expected_cost_usd[LARGE] - free.expected_cost_usd[SMALL]
        for factor, stays in ((0.9, free.action is LARGE), (1.1, True)):
            turn = policy.decide(features, RouteOptions(pinned=LARGE), priced(warm_usd=factor * saving), rng)
            assert (turn.action is LARGE) == stays
            assert (turn.reason is Reason.PINNED) == stays
            downs += not stays
        unknown = policy.decide(features, RouteOptions(pinned=LARGE), CALM, rng)
        assert unknown.action is LARGE  # what nobody can price is no reason to leave a warm prefix
    assert downs > 20


def test_limits_move_a_request_and_the_decision_says_when_no_model_keeps_them(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0, prices=PRICES)
    moved = 0
    for features in requests:
        free = policy.decide(features, RouteOptions(), priced(), rng)
        assert free.expected_cost_usd is not None
        small, large = free.expected_cost_usd[SMALL], free.expected_cost_usd[LARGE]
        between = policy.decide(features, RouteOptions(max_cost_usd=(small + large) / 2), priced(), rng)
        assert between.action is SMALL
        assert (between.reason is Reason.OVER_BUDGET) == (free.action is LARGE)
        assert between.exceeds == ()
        moved += free.action is LARGE
        neither = policy.decide(features, RouteOptions(max_cost_usd=small / 2), priced(), rng)
        assert (neither.action, neither.reason, neither.exceeds) == (
            SMALL,
            Reason.OVER_BUDGET,
            (Reason.OVER_BUDGET,),
        )
        slow = policy.decide(features, RouteOptions(max_ttft_s=0.5), priced(ttft=(0.9, 0.2)), rng)
        assert slow.action is LARGE
        slower = policy.decide(features, RouteOptions(max_ttft_s=0.5), priced(ttft=(0.9, 1.2)), rng)
        assert (slower.action, slower.reason, slower.exceeds) == (SMALL, Reason.TOO_SLOW, (Reason.TOO_SLOW,))
        assert slower.expected_ttft_s == {SMALL: 0.9, LARGE: 1.2}
    assert moved > 20
    with pytest.raises(ValueError, match="no prices are known"):
        policy.decide(requests[0], RouteOptions(max_cost_usd=1.0), CALM, rng)


def test_load_takes_the_smallest_gains_off_the_large_model_but_never_from_a_quality_that_was_asked(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0)

    def decisions(options: RouteOptions, pressure: float) -> list[Decision]:
        return [policy.decide(one, options, Circumstances(pressure=pressure), rng) for one in requests]

    for options in (RouteOptions(), RouteOptions(quality=0.9, sheds_load=True), RouteOptions(cost=0.6)):
        calm = decisions(options, 0.0)
        shares = []
        for pressure in (0.0, 0.3, 0.6, 1.0):
            pressed = decisions(options, pressure)
            kept = [d.rank for d in pressed if d.action is LARGE]
            shed = [d.rank for d in pressed if d.reason is Reason.OVERLOAD]
            assert len(kept) + len(shed) == sum(d.action is LARGE for d in calm)
            assert not kept or not shed or min(kept) >= max(shed)
            shares.append(len(kept) / len(pressed))
        assert shares == sorted(shares, reverse=True)
        assert shares[1] == pytest.approx(0.7 * shares[0], abs=0.08)
        assert shares[-1] == 0
    assert decisions(RouteOptions(quality=0.9), 1.0) == decisions(RouteOptions(quality=0.9), 0.0)


def test_a_spend_is_kept_where_requests_cost_other_than_in_training(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0, prices=PRICES)
    long_prompts = Circumstances(
        small=Offer(prompt_usd=4e-5, output_usd_per_token=8e-8),
        large=Offer(prompt_usd=2.76e-4, output_usd_per_token=5.52e-7),
        route_usd=4e-5,
    )
    options = RouteOptions(cost=0.6)
    spent = all_large = 0.0
    for features in [*requests, *requests]:
        decision = policy.decide(features, options, long_prompts, rng)
        policy.observe(decision)
        assert decision.expected_cost_usd is not None
        spent += decision.expected_cost_usd[decision.action]
        all_large += decision.expected_cost_usd[LARGE] - long_prompts.route_usd
    assert spent / all_large == pytest.approx(policy.check(options).cost, abs=0.05)


def test_deciding_alone_changes_nothing(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0)
    options = RouteOptions(cost=0.5)
    once = [policy.decide(one, options, CALM, rng) for one in requests]
    assert [policy.decide(one, options, CALM, rng) for one in requests] == once


def test_a_clear_case_is_decided_before_the_prefill_and_explored_like_any_other(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.3, prices=PRICES)
    threshold = policy.threshold(RouteOptions())
    clear = with_front(policy, threshold + 0.3, 0.9)
    decisions = [clear.decide_early(requests[0], RouteOptions(), CALM, rng) for _ in range(2_000)]
    found = [decision for decision in decisions if decision is not None]
    assert len(found) == 2_000
    assert np.mean([d.action is LARGE for d in found]) == pytest.approx(0.7, abs=0.04)
    for decision in found:
        assert decision.is_early
        assert decision.p_small is None
        assert decision.reason is (Reason.CLEAR_CASE if decision.action is LARGE else Reason.EXPLORED)
        assert decision.propensity == (0.7 if decision.action is LARGE else 0.3)
    assert with_front(policy, threshold - 0.01, 1.0).decide_early(requests[0], RouteOptions(), CALM, rng) is None
    without = replace(policy, artefact=replace(artefact, front=None))
    assert without.decide_early(requests[0], RouteOptions(), CALM, rng) is None
    # The same bounds do not do at a price that may put the rank below: the answer could be of the dearest.
    near = with_front(policy, threshold + 0.01, 0.9)
    assert near.decide_early(requests[0], RouteOptions(), CALM, rng) is not None
    assert near.decide_early(requests[0], RouteOptions(), priced(), rng) is None


@pytest.mark.parametrize(
    ("options", "circumstances"),
    [
        (RouteOptions(pinned=SMALL), CALM),
        (RouteOptions(eligible=frozenset({SMALL})), CALM),
        (RouteOptions(), Circumstances(pressure=0.5)),
        (RouteOptions(max_cost_usd=1e-6), priced()),
        (RouteOptions(max_ttft_s=0.5), priced(ttft=(0.1, 0.9))),
    ],
)
def test_nothing_is_clear_where_more_than_the_rank_decides(
    artefact: RouterArtefact,
    requests: list[Features],
    rng: np.random.Generator,
    options: RouteOptions,
    circumstances: Circumstances,
) -> None:
    policy = with_front(Policy(artefact=artefact, prices=PRICES), 0.9, 1.0)
    assert policy.decide_early(requests[0], options, circumstances, rng) is None


@pytest.mark.parametrize("only", [SMALL, LARGE])
def test_where_one_model_is_eligible_nothing_is_read_to_say_what_it_breaks(
    artefact: RouterArtefact, rng: np.random.Generator, only: Action
) -> None:
    policy = with_front(Policy(artefact=artefact, epsilon=0.5, prices=PRICES), 0.9, 1.0)
    options = RouteOptions(eligible=frozenset({only}), max_cost_usd=0.0, max_ttft_s=0.5, cost=0.9)
    decision = policy.settle(options, priced(ttft=(0.9, 0.9)), rng)
    assert (decision.action, decision.reason, decision.propensity) == (only, Reason.ONLY_ELIGIBLE, 1.0)
    assert decision.exceeds == (Reason.OVER_BUDGET, Reason.TOO_SLOW)
    assert decision.overspent is not None
    assert (decision.overspent > 0) == (only is LARGE)
    with pytest.raises(ConflictingWish):
        policy.settle(replace(options, quality=1.0, cost=0.3), priced(), rng)


def test_what_must_be_large_needs_no_prefill(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=artefact, epsilon=0.5)
    everything = policy.decide_early(requests[0], RouteOptions(quality=1.0), CALM, rng)
    assert everything is not None
    assert (everything.action, everything.reason, everything.propensity) == (LARGE, Reason.WORTH_IT, 1.0)
    loop = policy.decide_early(requests[0], RouteOptions(pinned=LARGE, in_tool_loop=True), CALM, rng)
    assert loop is not None
    assert (loop.action, loop.reason, loop.propensity) == (LARGE, Reason.PINNED, 1.0)


def test_a_short_turn_is_expected_to_cost_no_more_than_it_allows_where_nobody_counted_tokens(
    artefact: RouterArtefact, requests: list[Features]
) -> None:
    policy = Policy(artefact=artefact, prices=PRICES)
    free, short = priced(), replace(priced(), max_tokens=5)
    costs, most = policy.appraiser.costs(None, None, short), policy.appraiser.costs(None, None, free)
    assert costs is not None
    assert most is not None
    assert costs.small[0] == pytest.approx(8e-7 + 5 * 8e-8)
    assert costs.large[0] == pytest.approx(5.52e-6 + 5 * 5.52e-7)
    assert most.large[0] > costs.large[0]
    early = policy.appraiser.appraise_early(requests[0], short).cost_usd
    assert early is not None
    assert early[SMALL] == pytest.approx(costs.small[0])


def test_budgets_that_clients_make_up_do_not_end_the_control_of_those_in_use(artefact: RouterArtefact) -> None:
    policy, named = Policy(artefact=artefact), RouteOptions(target="auto-cost")
    kept = policy.planner.plan(named).controller
    for i in range(500):
        policy.check(RouteOptions(cost=i / 500))
        assert policy.planner.plan(named).controller is kept
    assert len(policy.planner._controllers) <= 64
    assert len(policy.planner._points) <= 256


REFUSED: list[tuple[Callable[[Policy, list[Features], np.random.Generator], object], str]] = [
    (lambda p, r, g: p.decide(r[0], RouteOptions(target="fast"), CALM, g), "auto-cost, auto-quality"),
    (lambda p, _, g: p.decide(extract("hi", RequestFacts()), RouteOptions(), CALM, g), "another kind"),
    (lambda p, *_: replace(p, epsilon=0.6), "epsilon"),
    (lambda p, *_: replace(p, max_regret=-1), "max_regret"),
]


@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_what_means_nothing_is_refused(
    artefact: RouterArtefact,
    requests: list[Features],
    rng: np.random.Generator,
    call: Callable[[Policy, list[Features], np.random.Generator], object],
    says: str,
) -> None:
    with pytest.raises(ValueError, match=says):
        call(Policy(artefact=artefact), requests, rng)


def test_an_unknown_target_is_its_own_error(artefact: RouterArtefact) -> None:
    with pytest.raises(UnknownTarget):
        Policy(artefact=artefact).check(RouteOptions(target="fast"))
