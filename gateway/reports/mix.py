"""How requests were spread over the models: by route, reason, key and time; escalations; thresholds; exploration."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np

from gateway.reports.facts import Facts
from gateway.reports.logged import policy_log

_MOST_GROUPS = 50
_MOST_BUCKETS = 168
_HOURS = (1, 6, 24, 24 * 7)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Requests with something in common. large_share: decided for the large model; of those that were routed."""

    name: str
    requests: int
    large_share: float | None
    escalated: int
    explored: int
    uncalibrated: int
    cost_usd: float
    cost_if_large_usd: float


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """The parts by each of four views, the largest first (by_hour: in order of time). What goes beyond 50 groups is
    one part, named `(others)`.
    """

    by_route: list[Part]
    by_reason: list[Part]
    by_key: list[Part]
    by_hour: list[Part]


class Escalations(msgspec.Struct, frozen=True, kw_only=True):
    """small: requests decided for the small model; escalated: of them, answered again by the large one. rate: their
    quotient. by_reason: why. prevented: why an answer that would have been escalated was not.
    """

    small: int
    escalated: int
    rate: float | None
    by_reason: dict[str, int]
    prevented: dict[str, int]


class ThresholdAt(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time of one target: mean threshold in force, and the share that really went to the large model.

    threshold: of the requests that a promise covered, or of all where it covered none: without a promise every request
    of a quality target goes to the large model, by a threshold that is out of any range.
    """

    start: datetime
    target: str
    requests: int
    threshold: float
    large_share: float
    calibrated_share: float


class Exploration(msgspec.Struct, frozen=True, kw_only=True):
    """What exploring cost. extra_cost_usd: of the explored requests beyond the other model (negative: it was saved).

    expected_score_lost: what the router expected to lose by them, in mean score over all routed requests.
    """

    explored: int
    share: float | None
    extra_cost_usd: float
    expected_score_lost: float


def mix(facts: Sequence[Facts]) -> Mix:
    """All four views; requests that named their model are in them under the reason `explicit`."""
    hours = _bucket_hours(facts)
    return Mix(
        by_route=_parts(facts, lambda one: one.route or "(none)"),
        by_reason=_parts(facts, lambda one: one.reason),
        by_key=_parts(facts, lambda one: one.key or "(none)"),
        by_hour=sorted(
            _parts(facts, lambda one: _bucket(one.created_at, hours).isoformat(), most=_MOST_BUCKETS),
            key=lambda part: part.name,
        ),
    )


def escalations(facts: Sequence[Facts]) -> Escalations:
    """Of the requests that were routed."""
    small = [one for one in facts if one.is_routed and not one.went_large]
    escalated = [one for one in small if one.escalated]
    return Escalations(
        small=len(small),
        escalated=len(escalated),
        rate=len(escalated) / len(small) if small else None,
        by_reason=_counted(one.escalate_reason or "unknown" for one in escalated),
        prevented=_counted(one.escalate_reason for one in small if one.escalate_reason and not one.escalated),
    )


def threshold_history(facts: Sequence[Facts]) -> list[ThresholdAt]:
    """In order of time, then of targets."""
    hours = _bucket_hours(facts)
    groups: defaultdict[tuple[datetime, str], list[Facts]] = defaultdict(list)
    for one in facts:
        if one.is_routed and one.threshold is not None:
            groups[_bucket(one.created_at, hours), _target(one)].append(one)
    return [
        ThresholdAt(
            start=start,
            target=target,
            requests=len(members),
            threshold=float(np.mean([one.threshold for one in members if one.calibrated == is_covered])),
            large_share=float(np.mean([one.went_large for one in members])),
            calibrated_share=float(np.mean([one.calibrated for one in members])),
        )
        for (start, target), members in sorted(groups.items(), key=lambda item: item[0])
        for is_covered in [any(one.calibrated for one in members)]
    ]


def exploration(facts: Sequence[Facts]) -> Exploration:
    """Of the requests that were routed."""
    routed = [one for one in facts if one.is_routed]
    explored = [one for one in routed if one.explored]
    log = policy_log(explored)
    extra = np.where(log.went_large, 1, -1) * (log.cost_large_usd - log.cost_small_usd)
    lost = np.where(log.went_large, -1, 1) * (log.p_large - log.p_small)
    return Exploration(
        explored=len(explored),
        share=len(explored) / len(routed) if routed else None,
        extra_cost_usd=float(np.nansum(extra)),
        expected_score_lost=float(np.nansum(lost)) / max(len(routed), 1),
    )


def _parts(facts: Sequence[Facts], key: Callable[[Facts], str], most: int = _MOST_GROUPS) -> list[Part]:
    groups: defaultdict[str, list[Facts]] = defaultdict(list)
    for one in facts:
        groups[key(one)].append(one)
    names = sorted(groups, key=lambda name: (-len(groups[name]), name))
    parts = [_part(name, groups[name]) for name in names[:most]]
    if rest := [one for name in names[most:] for one in groups[name]]:
        parts.append(_part("(others)", rest))
    return parts


def _part(name: str, members: Sequence[Facts]) -> Part:
    routed = [one.went_large for one in members if one.is_routed]
    return Part(
        name=name,
        requests=len(members),
        large_share=sum(routed) / len(routed) if routed else None,
        escalated=sum(one.escalated for one in members),
        explored=sum(one.explored for one in members),
        uncalibrated=sum(not one.calibrated for one in members),
        cost_usd=sum(one.cost_usd for one in members),
        cost_if_large_usd=sum(one.cost_if_large_usd for one in members),
    )


def _counted(names: object) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for name in names:  # type: ignore[attr-defined]
        counts[name] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _target(one: Facts) -> str:
    """The wish in words: the numbers that the request asked for win over the target's name."""
    asked = [f"{name} {one.wanted[name]:g}" for name in ("quality", "cost") if name in one.wanted]
    return ", ".join(asked) or one.target or "(none)"


def _bucket_hours(facts: Sequence[Facts]) -> int:
    """The shortest stretch of which no more than _MOST_BUCKETS fill the time of the decisions."""
    if not facts:
        return _HOURS[0]
    span = facts[-1].created_at - facts[0].created_at
    return next((hours for hours in _HOURS if span <= timedelta(hours=hours * (_MOST_BUCKETS - 1))), _HOURS[-1])


def _bucket(at: datetime, hours: int) -> datetime:
    start = at.replace(minute=0, second=0, microsecond=0)
    return start - timedelta(hours=int(start.timestamp() // 3600) % hours)
