"""The off-policy table: what each candidate policy would have scored and cost on the requests of a log."""

from collections.abc import Mapping

import msgspec
import numpy as np

from router_model.logistic import Floats
from router_model.off_policy import (
    Contributions,
    Estimate,
    Logged,
    Unidentifiable,
    difference,
    dr_terms,
    estimate,
    ips_terms,
    snips_terms,
)
from router_model.policy_log import PolicyLog
from router_model.reward_model import cross_fitted_rewards

LOGGING = "as logged"


class Valued(msgspec.Struct, frozen=True):
    """A value with its 95 % interval."""

    value: float
    lower: float
    upper: float


class PolicyValue(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one log. ips, snips and dr: its mean reward by each estimator; over_logging: by dr, less what the
    policy that was logged got, paired. refused: the sentence why nothing can be said; then all of those are None.

    large_share: of the log's requests; ess: effective sample size; n: rows that have the reward.
    """

    policy: str
    large_share: float | None
    n: int
    ess: float | None = None
    ips: Valued | None = None
    snips: Valued | None = None
    dr: Valued | None = None
    over_logging: Valued | None = None
    refused: str | None = None


def policy_values(
    log: PolicyLog, reward: Floats, policies: Mapping[str, Floats | Unidentifiable], rng: np.random.Generator
) -> list[PolicyValue]:
    """Every policy's value beside that of the log itself, which comes first, as LOGGING.

    reward [n]: NaN rows are left out, so the values are about requests that have one. policies: P(large) [n] by name,
    or why a policy could not be asked. A policy that no estimator can judge is listed with the reason.
    """
    has_reward = np.isfinite(reward)
    try:
        rows = log.take(has_reward)
        logged = rows.logged(reward[has_reward])
    except Unidentifiable as error:
        return [_refused(name, asked, 0, error) for name, asked in {LOGGING: Unidentifiable(), **policies}.items()]
    predicted = cross_fitted_rewards(logged, rows.evidence, rng)
    base: Contributions | None = None
    values = []
    for name, asked in {LOGGING: log.large_propensity, **policies}.items():
        if isinstance(asked, Unidentifiable):
            values.append(_refused(name, asked, len(logged), asked))
            continue
        try:
            value, dr = _value(name, logged, asked, asked[has_reward], predicted, base)
        except Unidentifiable as error:
            values.append(_refused(name, asked, len(logged), error))
            continue
        base = dr if base is None else base
        values.append(value)
    return values


def _value(
    name: str, logged: Logged, everywhere: Floats, asked: Floats, predicted: Floats, base: Contributions | None
) -> tuple[PolicyValue, Contributions]:
    dr = dr_terms(logged, asked, predicted)
    value = PolicyValue(
        policy=name,
        large_share=float(everywhere.mean()),
        n=len(logged),
        ess=dr.ess,
        ips=_valued(estimate(logged, ips_terms(logged, asked))),
        snips=_valued(estimate(logged, snips_terms(logged, asked))),
        dr=_valued(estimate(logged, dr)),
        over_logging=None if base is None else _valued(difference(logged, dr, base)),
    )
    return value, dr


def _valued(one: Estimate) -> Valued:
    return Valued(one.value, one.lower, one.upper)


def _refused(name: str, asked: Floats | Unidentifiable, n: int, error: Unidentifiable) -> PolicyValue:
    share = None if isinstance(asked, Unidentifiable) or not len(asked) else float(asked.mean())
    return PolicyValue(policy=name, large_share=share, n=n, refused=str(error))
