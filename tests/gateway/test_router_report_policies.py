"""Off-policy estimates of the router's report: what other policies would have come to."""

import msgspec
import numpy as np
import pytest

from gateway.reports.logged import policy_log
from gateway.reports.mix import escalations
from gateway.reports.other_policies import Reward, value_policies
from gateway.storage.identifiers import new_id
from router_model.bundle import bundle
from router_model.candidates import Candidate
from router_model.circumstances import Circumstances
from router_model.facts import RequestFacts
from router_model.features import FEATURE_SCHEMA_VERSION, Kind, extract, extract_outcome
from router_model.options import Action, RouteOptions
from router_model.policy import Policy
from router_model.training import train
from tests.gateway.report_worlds import fact, grade, world
from tests.router_model.worlds import make_outcomes


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
