"""The router's report: what it saved at what quality, and how much of what it says can be believed.

decisions + outcomes of the period (facts) ─► mix, speed, escalations, thresholds, exploration   (counted)
                                            ─► curve, comparisons, other policies                 (estimated)
                                            ─► reliability, state                                 (checked)
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from gateway.reports.comparison import Comparison, comparisons
from gateway.reports.curve import Curve, curve_of
from gateway.reports.facts import MOST_DECISIONS, Facts
from gateway.reports.knowledge import Knowledge, knowledge_of
from gateway.reports.mix import (
    Escalations,
    Exploration,
    Mix,
    ThresholdAt,
    escalations,
    exploration,
    mix,
    threshold_history,
)
from gateway.reports.other_policies import OtherPolicies, Reward, standard_candidates, value_policies
from gateway.reports.reliability import Reliability, reliability
from gateway.reports.routing import RoutingReport, summarise
from gateway.reports.speed import Quantiles, Speed, quantiles, speeds
from router_model.off_policy import Unidentifiable

_FAR = 1.0
"""`ood_score` beyond which a request is unlike the training data."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Whether promises hold. policy: what decides now; artefact_hash: of its router, None for a rule.

    uncalibrated_share: of the routed requests, those that were decided without a promise that holds; far_share: those
    unlike the training data. drift: the reasons for which no promise holds at present, empty where they do.
    """

    policy: str
    artefact_hash: str | None
    uncalibrated_share: float | None
    far_share: float | None
    drift: list[str]


class RouterReport(msgspec.Struct, frozen=True, kw_only=True):
    """See docs/routing.md for every part. scope: `all keys` or the one key whose rows these are.

    routing: the table of `pointsman report routing`. overhead: of deciding, without the prefill that it reads.
    """

    since: datetime | None
    until: datetime
    scope: str
    requests: int
    routed: int
    graded: int
    pairs: int
    price_version: str
    state: State
    routing: RoutingReport
    curve: Curve
    comparisons: list[Comparison]
    mix: Mix
    escalations: Escalations
    reliability: list[Reliability]
    thresholds: list[ThresholdAt]
    exploration: Exploration
    speed: list[Speed]
    overhead: Quantiles
    other_policies: OtherPolicies
    notes: list[str]


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """What decides at the moment, and with which prices; drift: see `State`."""

    policy: str
    artefact_hash: str | None
    price_version: str
    drift: tuple[str, ...] = ()


def router_report(
    facts: Sequence[Facts], in_force: InForce, *, since: datetime | None, until: datetime, scope: str
) -> RouterReport:
    """The report over these decisions, in order of time. Takes seconds for tens of thousands: call it in a thread."""
    known = _known(facts)
    routed = [one for one in facts if one.is_routed]
    return RouterReport(
        since=since,
        until=until,
        scope=scope,
        requests=len(facts),
        routed=len(routed),
        graded=sum(one.answer_score is not None for one in facts),
        pairs=sum(sum(grade.score is not None for grade in one.grades.values()) > 1 for one in facts),
        price_version=in_force.price_version,
        state=State(
            policy=in_force.policy,
            artefact_hash=in_force.artefact_hash,
            uncalibrated_share=_share([not one.calibrated for one in routed]),
            far_share=_share([one.ood_score > _FAR for one in routed if one.ood_score is not None]),
            drift=list(in_force.drift),
        ),
        routing=summarise([one.routed_request() for one in facts], since=since, until=until),
        curve=curve_of(known),
        comparisons=comparisons(facts, known),
        mix=mix(facts),
        escalations=escalations(facts),
        reliability=reliability(facts),
        thresholds=threshold_history(facts),
        exploration=exploration(facts),
        speed=speeds(facts),
        overhead=quantiles([one.overhead_s for one in routed]),
        other_policies=value_policies(
            facts, standard_candidates(facts), scope="explorable", reward=Reward(), routers={}
        ),
        notes=_notes(facts),
    )


def _known(facts: Sequence[Facts]) -> Knowledge | Unidentifiable:
    try:
        return knowledge_of(facts, np.random.default_rng(0))
    except Unidentifiable as error:
        return error


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _notes(facts: Sequence[Facts]) -> list[str]:
    notes = []
    if len(facts) >= MOST_DECISIONS:
        notes.append(f"These are the latest {MOST_DECISIONS} decisions of the period; older ones are left out.")
    if len({one.artefact_hash for one in facts if one.is_routed}) > 1:
        notes.append("More than one router decided in this period: the thresholds of one mean nothing to another.")
    return notes
