"""The routing report: who answered, why, how fast, at what cost, what was saved and what is known of the quality."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec
import numpy as np

from gateway.reports.estimate import Saving, estimate_saving

EXPLICIT = "explicit"
_FEW = 30


class RoutedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the report needs of one decision and its outcome. Optional fields are None where nothing was measured.

    drafted_tokens, accepted_tokens: of its request's record, 0 where that has not arrived.
    """

    model: str
    reason: str
    explored: bool = False
    escalated: bool = False
    calibrated: bool = True
    early: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    cost_usd: float = 0.0
    cost_if_large_usd: float = 0.0
    ttft_s: float | None = None
    valid: bool | None = None
    feedback: int | None = None
    grade: float | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a group's answers: validation, the clients' feedback, grades from 0 to 1.

    summary: the same in words; `unknown` where nothing was measured.
    """

    summary: str
    checked: int
    invalid: int
    rated: int
    disliked: int
    graded: int
    grade_mean: float | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that have something in common. share: of the routed requests, None for those that were not routed.

    acceptance: accepted_tokens / drafted_tokens, None where nothing was drafted. escalated: answered again by the large
    model. uncalibrated: the target's promise did not hold for them. early: decided before any prefill.
    """

    name: str
    requests: int
    share: float | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    acceptance: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    explored: int
    escalated: int
    uncalibrated: int
    early: int
    saving: Saving
    quality: Quality


class RoutingReport(msgspec.Struct, frozen=True, kw_only=True):
    """total and by_model: requests that the router decided; by_reason: all, those that named their model as `explicit`.

    notes: what must be known to read the figures; part of every rendering.
    """

    since: datetime | None
    until: datetime
    total: Group
    by_model: list[Group]
    by_reason: list[Group]
    notes: list[str]


def summarise(requests: Sequence[RoutedRequest], *, since: datetime | None, until: datetime) -> RoutingReport:
    """The report over these requests."""
    routed = [request for request in requests if request.reason != EXPLICIT]
    total = _group("total", routed, len(routed))
    return RoutingReport(
        since=since,
        until=until,
        total=total,
        by_model=_groups(routed, lambda request: request.model, len(routed)),
        by_reason=_groups(requests, lambda request: request.reason, len(routed)),
        notes=_notes(routed, total, n_explicit=len(requests) - len(routed)),
    )


def _groups(requests: Iterable[RoutedRequest], key: Callable[[RoutedRequest], str], n_routed: int) -> list[Group]:
    members: defaultdict[str, list[RoutedRequest]] = defaultdict(list)
    for request in requests:
        members[key(request)].append(request)
    names = sorted(members, key=lambda name: (-len(members[name]), name))
    return [_group(name, members[name], n_routed) for name in names]


def _group(name: str, requests: Sequence[RoutedRequest], n_routed: int) -> Group:
    ttft_s = [request.ttft_s for request in requests if request.ttft_s is not None]
    p50, p95 = (float(bound) for bound in np.quantile(ttft_s, [0.5, 0.95])) if ttft_s else (None, None)
    drafted = sum(request.drafted_tokens for request in requests)
    accepted = sum(request.accepted_tokens for request in requests)
    return Group(
        name=name,
        requests=len(requests),
        share=len(requests) / n_routed if n_routed and name != EXPLICIT else None,
        prompt_tokens=sum(request.prompt_tokens for request in requests),
        cached_tokens=sum(request.cached_tokens for request in requests),
        completion_tokens=sum(request.completion_tokens for request in requests),
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        acceptance=accepted / drafted if drafted else None,
        ttft_p50_s=p50,
        ttft_p95_s=p95,
        explored=sum(request.explored for request in requests),
        escalated=sum(request.escalated for request in requests),
        uncalibrated=sum(not request.calibrated for request in requests),
        early=sum(request.early for request in requests),
        saving=estimate_saving(
            [request.cost_usd for request in requests], [request.cost_if_large_usd for request in requests]
        ),
        quality=_quality(requests),
    )


def _quality(requests: Sequence[RoutedRequest]) -> Quality:
    checked = [request.valid for request in requests if request.valid is not None]
    rated = [request.feedback for request in requests if request.feedback is not None]
    grades = [request.grade for request in requests if request.grade is not None]
    invalid = checked.count(False)
    disliked = sum(feedback < 0 for feedback in rated)
    grade_mean = sum(grades) / len(grades) if grades else None
    parts = [f"{invalid} of {len(checked)} invalid"] if checked else []
    parts += [f"{disliked} of {len(rated)} disliked"] if rated else []
    parts += [f"grade {grade_mean:.2f} of {len(grades)}"] if grades else []
    return Quality(
        summary=", ".join(parts) or "unknown",
        checked=len(checked),
        invalid=invalid,
        rated=len(rated),
        disliked=disliked,
        graded=len(grades),
        grade_mean=grade_mean,
    )


def _notes(routed: Sequence[RoutedRequest], total: Group, *, n_explicit: int) -> list[str]:
    notes = []
    if any(request.model != "large" for request in routed):
        notes.append(
            "The cost if all were large is an estimate where the small model answered: it takes the large model's "
            "prices for the same tokens."
        )
    if total.saving.low is not None:
        notes.append(
            "The interval is a 95 % bootstrap over requests. It covers which requests came, not the estimate's "
            "assumption."
        )
    if 0 < len(routed) < _FEW:
        notes.append(f"{len(routed)} requests are too few for the interval to be trusted.")
    quality = total.quality
    if routed and not (quality.checked or quality.rated or quality.graded):
        notes.append("Nothing was measured of the quality, so whether the saving cost any is unknown.")
    elif routed and not quality.graded:
        notes.append(
            "Quality counts broken constraints and feedback only: an answer can be valid and wrong, and the models did "
            "not answer the same requests."
        )
    if total.uncalibrated:
        notes.append(
            f"{total.uncalibrated} requests were unlike what the router was trained on, or came while it had drifted: "
            "for them no target's promise holds."
        )
    if n_explicit:
        notes.append(
            f"{n_explicit} requests named their model; they stand under `{EXPLICIT}` and are in no other figure."
        )
    return notes
