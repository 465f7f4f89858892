"""What other policies would have scored on logged requests, with intervals; or why that cannot be said."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from gateway.reports.facts import Facts
from gateway.reports.logged import policy_log
from router_model.candidates import Candidate, large_probability
from router_model.logistic import Floats
from router_model.off_policy import Unidentifiable
from router_model.policy import Policy
from router_model.policy_log import PolicyLog
from router_model.policy_value import PolicyValue, policy_values

Scope = Literal["all", "explorable"]


class Reward(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy is valued by. kind: `score` (the answers' grades, 0 to 1) or `cost` (USD a request, the less the
    better). cost_weight: taken off the score for each USD that the request cost.
    """

    kind: Literal["score", "cost"] = "score"
    cost_weight: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a weight that is negative, no number, or of no use."""
        if not 0 <= self.cost_weight < float("inf"):
            raise ValueError(f"cost_weight is {self.cost_weight}: use a finite number from 0")
        if self.kind == "cost" and self.cost_weight:
            raise ValueError("cost_weight belongs to the kind `score`")

    def of(self, log: PolicyLog) -> Floats:
        """The reward of each decision [n], NaN where it is not known."""
        if self.kind == "cost":
            return log.cost_usd
        return log.score - self.cost_weight * log.cost_usd if self.cost_weight else log.score


class OtherPolicies(msgspec.Struct, frozen=True, kw_only=True):
    """The policy that was logged first, then the candidates.

    scope: `all` routed requests, or the `explorable` ones, which could have gone the other way; requests: how many
    those are, graded: how many have the reward; fixed: routed requests without an alternative (one eligible model, a
    pinned conversation, a client that opted out), which only the scope `all` has. unread: requests that no policy is
    valued on, since a router that was asked about does not read what was logged of them: nothing, or the features of
    another kind of router. Nobody knows whether ungraded requests are like the graded.
    """

    scope: Scope
    reward: Reward
    requests: int
    graded: int
    fixed: int
    unread: int
    policies: list[PolicyValue]


def value_policies(
    facts: Sequence[Facts],
    candidates: Mapping[str, Candidate],
    *,
    scope: Scope,
    reward: Reward,
    routers: Mapping[str, Policy | None],
    seed: int = 0,
) -> OtherPolicies:
    """Value the candidates, by name, on the routed ones of these decisions.

    routers: by the candidates' `artefact`, the one in force by the empty name; see `large_probability`. ValueError: a
    candidate that its router cannot answer.
    """
    routed = policy_log([one for one in facts if one.is_routed])
    log = routed.take(routed.has_alternative) if scope == "explorable" else routed
    asked: dict[str, Floats | Unidentifiable] = {}
    for name, candidate in candidates.items():
        try:
            asked[name] = large_probability(candidate, log, routers.get(candidate.artefact or ""))
        except Unidentifiable as error:
            asked[name] = error
    is_read = np.ones(len(log), np.bool_)
    for one in asked.values():
        if not isinstance(one, Unidentifiable):
            is_read &= np.isfinite(one)
    log = log.take(is_read)
    log = log if reward.kind == "cost" else log.for_grades()
    values = log.score if not len(log) else reward.of(log)
    return OtherPolicies(
        scope=scope,
        reward=reward,
        requests=len(log),
        graded=int(np.isfinite(values).sum()),
        fixed=int((~routed.has_alternative).sum()),
        unread=int((~is_read).sum()),
        policies=policy_values(
            log,
            values,
            {name: one if isinstance(one, Unidentifiable) else one[is_read] for name, one in asked.items()},
            np.random.default_rng(seed),
        ),
    )


def standard_candidates(facts: Sequence[Facts]) -> dict[str, Candidate]:
    """What a report asks about: each model alone, random at the share that was, and other thresholds."""
    routed = [one.went_large for one in facts if one.is_routed]
    share = sum(routed) / len(routed) if routed else 0.5
    several = [Candidate(model="small"), Candidate(model="large"), Candidate(share=share)]
    several += [Candidate(shift=shift) for shift in (-0.1, -0.05, 0.05, 0.1)]
    return {one.name: one for one in several}
