from typing import Literal

import msgspec
import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.candidates import Candidate, large_probability
from router_model.features import Kind, extract_outcome
from router_model.off_policy import Unidentifiable
from router_model.options import Action, Cascade, RouteOptions
from router_model.outcomes import Outcome
from router_model.policy import Policy
from router_model.policy_log import LoggedDecision, PolicyLog, fill_small_cost


def log(n: int = 40, **fields: object) -> PolicyLog:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        known: dict[str, object] = {
            "action": Action.LARGE if rng.random() < 0.5 else Action.SMALL,
            "propensity": 0.95,
            "cluster": f"talk-{i // 2}",
            "gain": float(rng.normal()),
            "ood": 0.5,
            "threshold": 0.1,
            "at_s": float(i),
        }
        rows.append(LoggedDecision(**(known | fields)))  # type: ignore[arg-type]
    return PolicyLog.of(rows)


def test_a_candidate_is_one_policy_and_no_other() -> None:
    for wrong in (
        {},
        {"model": "small", "share": 0.5},
        {"share": 1.5},
        {"model": "small", "artefact": "ab"},
        {"share": 0.5, "cascade": "confidence"},
    ):
        with pytest.raises(ValueError, match=r"exactly one|share|artefact|cascade"):
            Candidate(**wrong)  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError, match="exactly one"):
        msgspec.json.decode(b'{"share": 0.5, "cost": 0.5}', type=Candidate)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"share": 0.5, "typo": 0.5}', type=Candidate)


def test_each_policy_asks_for_what_its_name_says() -> None:
    logged = log()
    assert set(large_probability(Candidate(model="large"), logged)) == {1.0}
    assert set(large_probability(Candidate(share=0.25), logged)) == {0.25}
    assert (large_probability(Candidate(threshold=0.3), logged) == (logged.gain >= 0.3)).all()
    assert (large_probability(Candidate(shift=0.3), logged) == (logged.gain >= 0.4)).all()
    # Out of domain a threshold keeps no promise, so those go to the large model.
    assert set(large_probability(Candidate(threshold=9.0), log(ood=2.0))) == {1.0}
    names = [Candidate(model="small"), Candidate(share=0.5), Candidate(shift=0.05), Candidate(quality=0.9)]
    names.append(Candidate(quality=0.9, cascade="validation"))
    wanted = ["all small", "share 0.5", "shift +0.05", "quality 0.9", "quality 0.9, validation"]
    assert [one.name for one in names] == wanted


def test_what_the_log_does_not_hold_is_refused() -> None:
    with pytest.raises(Unidentifiable, match="no score and threshold"):
        large_probability(Candidate(shift=0.1), log(threshold=np.nan))
    with pytest.raises(ValueError, match="no router is in force"):
        large_probability(Candidate(quality=0.5), log())


def test_a_router_is_asked_request_by_request(artefact: RouterArtefact, outcomes: list[Outcome]) -> None:
    chosen = outcomes[:30]
    rows = [
        LoggedDecision(
            action=Action.SMALL,
            propensity=0.95,
            cluster=one.id,
            features=extract_outcome(one, Kind.STATE),
            at_s=float(i),
            options=RouteOptions(eligible=frozenset({Action.SMALL}) if i == 0 else frozenset(Action)),
        )
        for i, one in enumerate(chosen)
    ]
    policy = Policy(artefact=artefact, epsilon=0.0)
    asked = {
        quality: large_probability(Candidate(quality=quality, quality_scale="gap"), PolicyLog.of(rows), policy)
        for quality in (0.0, 0.5, 1.0)
    }
    assert (asked[0.0] <= asked[0.5]).all()
    assert (asked[0.5] <= asked[1.0]).all()
    assert asked[1.0].tolist() == [0.0] + [1.0] * 29, "what is not eligible is not taken by any policy"
    assert 0 < asked[0.5].mean() < 1
    with pytest.raises(Unidentifiable, match="features that this router reads"):
        large_probability(Candidate(quality=0.5), log(), policy)


@pytest.mark.parametrize("cascade", ["off", "confidence"])
def test_a_candidate_says_which_second_chances_its_promise_counts(
    artefact: RouterArtefact,
    outcomes: list[Outcome],
    monkeypatch: pytest.MonkeyPatch,
    cascade: Literal["off", "confidence"],
) -> None:
    asked = list[RouteOptions]()
    monkeypatch.setattr(Policy, "check", lambda _, options: asked.append(options))
    row = LoggedDecision(
        action=Action.SMALL, propensity=1.0, cluster="a", features=extract_outcome(outcomes[0], Kind.STATE)
    )
    policy = Policy(artefact=artefact, epsilon=0.0)
    large_probability(Candidate(quality=0.5, cascade=cascade), PolicyLog.of([row]), policy)
    assert [options.cascade for options in asked] == [Cascade(cascade)]


def test_rows_come_in_order_of_time_and_conversations_keep_together() -> None:
    rows = list(log(10).rows)
    shuffled = PolicyLog.of(rows[::-1])
    assert [row.at_s for row in shuffled.rows] == [float(i) for i in range(10)]
    assert shuffled.clusters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(shuffled.take(shuffled.gain > 0)) == int((shuffled.gain > 0).sum())


def test_unknown_costs_of_the_small_model_follow_the_ratio_of_the_known() -> None:
    rows = [
        LoggedDecision(action=Action.SMALL, propensity=1.0, cluster="a", cost_small_usd=1.0, cost_large_usd=4.0),
        LoggedDecision(action=Action.LARGE, propensity=1.0, cluster="b", cost_large_usd=8.0),
    ]
    filled = fill_small_cost(PolicyLog.of(rows))
    assert filled.cost_small_usd.tolist() == [1.0, 2.0]
    assert filled.cost_usd.tolist() == [1.0, 8.0]
    with pytest.raises(Unidentifiable, match="holds no such decision"):
        PolicyLog.of([]).logged(np.zeros(0))
