"""The policy's word on the small model's answers, and wishes that count the second answers which come of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from router_model import evidence as evidence_module
from router_model.artefact import RouterArtefact
from router_model.bundle import bundle, recalibrate, token_table
from router_model.cascade import Answer, answer_of
from router_model.circumstances import Circumstances
from router_model.costs import row_costs
from router_model.escalation import EscalateReason, recorded_failure
from router_model.features import Features, Kind, extract_outcome
from router_model.logistic import Floats
from router_model.metrics import auroc
from router_model.options import Cascade, QualityScale
from router_model.outcomes import Outcome
from router_model.policy import Decision, Policy, RouteOptions
from router_model.training import train
from tests.router_model.policy_worlds import CALM, LARGE, PRICES, SMALL, priced
from tests.router_model.test_cascade import with_answers
from tests.router_model.worlds import QUICK, make_outcomes

SIGNAL = 0.85
"""How often the made-up look of an answer says whether it is right."""

FAILING = 0.04
"""How many of the small model's answers fail."""


@dataclass(frozen=True)
class CascadeStub:
    """Trusts an answer as far as a test says."""

    p: float

    def p_right(self, _small: float, _large: float, _answer: Answer) -> float:
        return self.p


@dataclass(frozen=True)
class LookStub:
    """Reads an answer's look, which a test puts where its mean log probability would be, as Bayes' rule has it."""

    def p_right(self, small: float, _large: float, answer: Answer) -> float:
        assert answer.logprob_mean is not None
        return float(after_look(np.array(small), np.array(answer.logprob_mean)))


def after_look(p_small: Floats, look: Floats) -> Floats:
    likely = np.where(look > 0, SIGNAL, 1 - SIGNAL)
    right: Floats = p_small * likely / (p_small * likely + (1 - p_small) * (1 - likely))
    return right


def looks(scores: Floats, rng: np.random.Generator) -> Floats:
    is_true = rng.random(len(scores)) < SIGNAL
    return np.where(is_true == (scores > 0), 1.0, 0.0)


def with_cascade(policy: Policy, p: float) -> Policy:
    return replace(policy, artefact=replace(policy.artefact, cascade=CascadeStub(p)))  # type: ignore[arg-type]


def answer(**changes: object) -> Answer:
    return Answer(**{"text": "an answer", "n_tokens": 4, "is_valid": None, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows() -> list[Outcome]:
    return make_outcomes(300, with_state=True, seed=21)


@pytest.fixture(scope="module")
def requests(rows: list[Outcome]) -> list[Features]:
    return [extract_outcome(one, Kind.STATE) for one in rows]


@pytest.fixture(scope="module")
def judging(artefact: RouterArtefact) -> RouterArtefact:
    """The router with evidence of answers whose look was judged."""
    rng, known = np.random.default_rng(1), artefact.evidence
    right = after_look(known.held_out.p_small, looks(known.scores[:, 0], rng))
    failed = rng.random(len(right)) < FAILING
    return replace(artefact, evidence=replace(known, right=right, failed=failed), cascade=LookStub())  # type: ignore[arg-type]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def sent_small(artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator) -> Decision:
    policy = Policy(artefact=artefact, epsilon=0)
    decisions = (policy.decide(one, RouteOptions(), CALM, rng) for one in requests)
    return next(decision for decision in decisions if decision.action is SMALL)


def test_only_a_model_of_answers_doubts_one(artefact: RouterArtefact, sent_small: Decision) -> None:
    found = Policy(artefact=artefact).judge(sent_small, answer(is_valid=False), RouteOptions(), CALM)
    assert (found.reason, found.p_right, found.rank) == (None, None, None)
    doubting = with_cascade(Policy(artefact=artefact), 0.0)
    assert doubting.judge(sent_small, answer(), RouteOptions(), CALM).reason is EscalateReason.LOW_CONFIDENCE
    assert not doubting.judge(sent_small, answer(), RouteOptions(eligible=frozenset({SMALL})), CALM).reason


def test_a_doubtful_answer_escalates_where_the_gain_over_it_reaches_the_threshold(
    artefact: RouterArtefact, sent_small: Decision
) -> None:
    policy = Policy(artefact=artefact)
    threshold, p_large = policy.threshold(RouteOptions()), sent_small.p_large
    assert p_large is not None
    for margin in (0.01, -0.01):
        trusting = with_cascade(policy, p_large - threshold - margin)
        found = trusting.judge(sent_small, answer(), RouteOptions(), CALM)
        assert (found.reason is not None) == (margin > 0)
        assert found.rank == pytest.approx(threshold + margin)


def test_limits_loops_and_load_forbid_a_second_answer(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = with_cascade(Policy(artefact=artefact, epsilon=0, prices=PRICES), 0.0)
    circumstances = priced()
    decisions = (policy.decide(one, RouteOptions(), circumstances, rng) for one in requests)
    sent = next(decision for decision in decisions if decision.action is SMALL)
    assert sent.expected_cost_usd is not None
    both = sent.expected_cost_usd[SMALL] + sent.expected_cost_usd[LARGE] - circumstances.route_usd
    loop = RouteOptions(pinned=SMALL, in_tool_loop=True)

    def escalates(options: RouteOptions, circumstances: Circumstances = circumstances, sent: Decision = sent) -> bool:
        return policy.judge(sent, answer(), options, circumstances).reason is not None

    assert escalates(RouteOptions())
    assert escalates(RouteOptions(max_cost_usd=1.01 * both))
    assert not escalates(RouteOptions(max_cost_usd=0.99 * both))
    assert not escalates(loop)
    assert not escalates(RouteOptions(), priced(pressure=1.0))
    assert not escalates(RouteOptions(), sent=replace(sent, action=LARGE))


def test_a_second_answer_counts_towards_the_share(
    artefact: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy, options = Policy(artefact=artefact, epsilon=0), RouteOptions(target="auto-cost")
    before = policy.threshold(options)
    for features in requests[:20]:
        policy.observe_escalation(policy.decide(features, options, CALM, rng), CALM)
    assert policy.threshold(options) > before


def test_second_chances_make_a_quality_cheaper_or_its_threshold_higher_and_never_less_sure(
    judging: RouterArtefact,
) -> None:
    policy = Policy(artefact=judging, prices=PRICES)
    for quality in (0.6, 0.8, 0.95):
        off, confidence = (
            policy.check(RouteOptions(quality=quality, quality_scale=QualityScale.GAP, cascade=cascade))
            for cascade in (Cascade.OFF, Cascade.CONFIDENCE)
        )
        assert confidence.lower >= quality
        assert confidence.threshold > off.threshold
        assert confidence.cost < off.cost
    assert policy.check(RouteOptions(quality=0.9)) == Policy(artefact=judging, prices=PRICES).check(
        RouteOptions(quality=0.9, cascade=Cascade.OFF)
    )


def test_an_answer_is_judged_by_the_threshold_that_its_promise_was_made_for(
    judging: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=judging, epsilon=0, prices=PRICES)
    for cascade in Cascade:
        options = RouteOptions(quality=0.9, cascade=cascade)
        decisions = [policy.decide(one, options, priced(), rng) for one in requests]
        sent = next(one for one in decisions if one.action is SMALL)
        found = policy.judge(sent, answer(logprob_mean=0.0), options, priced())
        assert found.threshold == sent.threshold == policy.check(options).threshold


@pytest.mark.parametrize("cascade", Cascade)
@pytest.mark.parametrize("options", [RouteOptions(target="auto-cost"), RouteOptions(cost=0.4), RouteOptions(cost=0.7)])
def test_a_share_and_a_spend_hold_with_second_answers_from_the_beginning_on(
    judging: RouterArtefact,
    rows: list[Outcome],
    requests: list[Features],
    rng: np.random.Generator,
    options: RouteOptions,
    cascade: Cascade,
) -> None:
    policy, options = Policy(artefact=judging, epsilon=0, prices=PRICES), replace(options, cascade=cascade)
    if options.cost is None:  # without a gap that is certain, so that the target keeps its share
        policy = Policy(artefact=judging, epsilon=0)
    scores = np.array([one.weak_score for one in rows])
    look, failed = looks(scores, rng), rng.random(len(rows)) < FAILING
    went, again, spent, all_large = ([0.0] * (3 * len(rows)) for _ in range(4))
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(3)])
    for n, i in enumerate(order.tolist()):
        decision = policy.decide(requests[i], options, priced(), rng)
        policy.observe(decision)
        assert decision.expected_cost_usd is not None
        went[n] = float(decision.action is LARGE)
        all_large[n] = decision.expected_cost_usd[LARGE] - priced().route_usd
        spent[n] = decision.expected_cost_usd[decision.action]
        if decision.action is LARGE:
            continue
        judged = policy.judge(decision, answer(logprob_mean=float(look[i])), options, priced())
        is_doubted = cascade is Cascade.CONFIDENCE and judged.reason is not None
        if is_doubted or (cascade is not Cascade.OFF and failed[i]):
            policy.observe_escalation(decision, priced())
            again[n] = 1.0
            spent[n] += all_large[n]
    point = policy.check(options)
    assert (sum(again) > 0) == (cascade is not Cascade.OFF)
    for n, near in ((300, 0.06), (len(order), 0.03)):
        if options.cost is None:
            assert np.mean(np.add(went, again)[:n]) == pytest.approx(point.share, abs=near)
        else:
            assert sum(spent[:n]) / sum(all_large[:n]) == pytest.approx(point.cost, abs=near)


def test_a_share_that_load_takes_off_leaves_the_failures_that_no_threshold_holds_back(
    judging: RouterArtefact, requests: list[Features], rng: np.random.Generator
) -> None:
    policy = Policy(artefact=judging, epsilon=0)
    options = RouteOptions(target="auto-cost", cascade=Cascade.VALIDATION)
    failing = float(judging.evidence.failed.mean())
    for _ in range(3):
        for features in requests:
            decision = policy.decide(features, options, Circumstances(pressure=1.0), rng)
            assert decision.action is SMALL
            policy.observe(decision)
            if rng.random() < failing:
                policy.observe_escalation(decision, Circumstances(pressure=1.0))
    kept = policy.planner.plan(options).controller
    assert kept is not None
    assert abs(kept.overspent) < 15, "neither a debt nor a credit is left when the load ends"


def test_no_request_waits_for_a_curve(judging: RouterArtefact, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(artefact=judging, prices=PRICES)

    def fit_curve(*_: object, **__: object) -> None:
        raise AssertionError("a curve was computed for a request")

    monkeypatch.setattr(evidence_module, "fit_curve", fit_curve)
    for cascade in Cascade:
        for wish in (RouteOptions(), RouteOptions(target="auto-cost"), RouteOptions(quality=0.8), RouteOptions(cost=1)):
            assert policy.check(replace(wish, cascade=cascade)).share > 0


@pytest.fixture(scope="module")
def answering() -> RouterArtefact:
    """A router that learned of answers, some of which failed."""
    outcomes = failing(with_answers(make_outcomes(1_200, with_state=False, seed=40)), 41)
    return bundle(train(outcomes, QUICK), outcomes)


def failing(outcomes: list[Outcome], seed: int) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    return [replace(one, weak_response=" ", weak_score=0.0) if rng.random() < FAILING else one for one in outcomes]


@pytest.mark.parametrize("cascade", Cascade)
def test_a_trained_router_keeps_what_it_promises_with_its_second_chances(
    answering: RouterArtefact, rng: np.random.Generator, cascade: Cascade
) -> None:
    """Every request decided, answered, judged and paid for, by the tokens that it really took."""
    policy, options = Policy(artefact=answering, epsilon=0, prices=PRICES), RouteOptions(quality=0.9, cascade=cascade)
    point, fresh = policy.check(options), failing(with_answers(make_outcomes(1_500, with_state=False, seed=42), 43), 44)
    costs = row_costs(PRICES, token_table(fresh), has_prefill=False)
    reached, spent, n_large = 0.0, 0.0, 0
    for i, one in enumerate(fresh):
        decision = policy.decide(extract_outcome(one, Kind.TEXT), options, priced(), rng)
        is_large = decision.action is LARGE
        spent += float(costs.large[i] if is_large else costs.small[i])
        if not is_large and cascade is not Cascade.OFF:
            told = answer_of(one)
            assert told is not None
            judged = policy.judge(decision, told, options, priced())
            doubts = cascade is Cascade.CONFIDENCE and judged.reason is not None
            is_large = doubts or recorded_failure(told) is not None
            spent += float(costs.large[i]) * is_large
        n_large += is_large
        reached += one.strong_score if is_large else one.weak_score
    assert reached / sum(one.strong_score for one in fresh) >= 0.9
    assert spent / costs.large.sum() == pytest.approx(point.cost, abs=0.05)
    assert n_large / len(fresh) == pytest.approx(point.share, abs=0.06)


def test_recalibration_judges_the_answers_of_its_new_rows(answering: RouterArtefact) -> None:
    rows = failing(with_answers(make_outcomes(400, with_state=False, seed=45), 46), 47)
    rows = [one if i % 4 else replace(one, weak_response=None, small_logprob_mean=None) for i, one in enumerate(rows)]
    found = recalibrate(answering, rows).evidence
    has_answer = np.array([one.weak_response is not None for one in rows])
    np.testing.assert_array_equal(np.isfinite(found.right), has_answer)
    np.testing.assert_array_equal(found.failed, [one.weak_response == " " for one in rows])
    assert 0 < found.failed.mean() < 0.1
    assert auroc(found.right[has_answer], found.scores[has_answer, 0] > 0.5) > 0.8
    assert found.curve(cascade=Cascade.CONFIDENCE).has_second_chances
