"""Decisions from the database as the log that off-policy estimates read."""

import math
from collections.abc import Sequence

from gateway.reports.facts import Facts
from router_model.features import FEATURE_SCHEMA_VERSION, Features
from router_model.options import Action, RouteOptions
from router_model.policy_log import LoggedDecision, PolicyLog, fill_small_cost


def policy_log(facts: Sequence[Facts]) -> PolicyLog:
    """The log of these decisions, in the order of time. Conversations are clusters; a request without one is its own.

    Features of another schema than this version's are left out, as if they had not been logged.
    """
    return fill_small_cost(PolicyLog.of([_logged(one) for one in facts]))


def _logged(one: Facts) -> LoggedDecision:
    action = Action.LARGE if one.went_large else Action.SMALL
    small, large = _costs(one)
    return LoggedDecision(
        action=action,
        propensity=one.propensity,
        cluster=one.session_hash or str(one.id),
        score=_number(one.answer_score),
        cost_small_usd=small,
        cost_large_usd=large,
        expected_small_usd=one.expected_cost_usd.get(Action.SMALL, math.nan),
        expected_large_usd=one.expected_cost_usd.get(Action.LARGE, math.nan),
        p_small=_number(one.p_small),
        p_large=_number(one.p_large),
        gain=_number(one.score),
        ood=_number(one.ood_score),
        threshold=_number(one.threshold),
        keep_prob=one.keep_prob,
        graded_prob=one.graded_prob,
        features=_features(one),
        options=RouteOptions(
            max_cost_usd=one.wanted.get("max_cost_usd"),
            max_ttft_s=one.wanted.get("max_ttft_s"),
            eligible=frozenset(action for action in Action if action in one.eligible) or frozenset({action}),
            pinned=action if one.pinned else None,
            route=one.route,
        ),
        artefact=one.artefact_hash or "",
        at_s=one.created_at.timestamp(),
    )


def _costs(one: Facts) -> tuple[float, float]:
    """What small and large cost for it: the one that was taken in fact, the other as a shadow run or the prices say."""
    small, large = one.grades.get(Action.SMALL), one.grades.get(Action.LARGE)
    if not one.went_large:
        known = large is not None and large.shadow and large.cost_usd > 0
        return one.cost_usd, large.cost_usd if large is not None and known else one.cost_if_large_usd
    if small is not None and small.shadow and small.cost_usd > 0:
        return small.cost_usd, one.cost_usd
    return one.expected_cost_usd.get(Action.SMALL, math.nan), one.cost_usd


def _features(one: Facts) -> Features | None:
    if one.features is None or one.features_version != str(FEATURE_SCHEMA_VERSION):
        return None
    try:
        return Features.unpack(one.features)
    except ValueError:
        return None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
