"""Policies that can be asked about, and what each would have done with the requests of a log."""

from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from router_model.circumstances import Circumstances, Offer
from router_model.features import Kind
from router_model.logistic import Floats
from router_model.off_policy import Unidentifiable
from router_model.options import Action, Cascade, QualityScale
from router_model.policy import Policy
from router_model.policy_log import LoggedDecision, PolicyLog
from router_model.score import EDGE


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A policy by what defines it. Exactly one of these:

    model: always that one. share: the large model with this probability, whatever the request. threshold: on the
    logged gain. shift: added to each request's logged threshold. target, quality or cost: a wish as a request would
    send it, answered by `artefact` (hash of a router in the registry), or without one by the router in force.
    quality_scale belongs to quality; cascade to all three: second chances that the promise counts, for every request.
    """

    model: Literal["small", "large"] | None = None
    share: float | None = None
    threshold: float | None = None
    shift: float | None = None
    target: str | None = None
    quality: float | None = None
    quality_scale: Literal["large", "gap"] = "large"
    cost: float | None = None
    cascade: Literal["off", "validation", "confidence"] = "off"
    artefact: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly one policy is named."""
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of {', '.join(_KINDS)}, not {' and '.join(given) or 'none'}")
        if self.artefact is not None and not self.needs_artefact:
            raise ValueError(f"an artefact goes with target, quality or cost, not with {given[0]}")
        if self.cascade != "off" and not self.needs_artefact:
            raise ValueError(f"a cascade goes with target, quality or cost, not with {given[0]}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"the share is {self.share}: use 0 (all small) to 1 (all large)")

    @property
    def needs_artefact(self) -> bool:
        """Whether a router has to answer it."""
        return self.model is None and self.share is None and self.threshold is None and self.shift is None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        if self.model is not None:
            return f"all {self.model}"
        kind = next(name for name in _KINDS if getattr(self, name) is not None)
        value = getattr(self, kind)
        text = value if isinstance(value, str) else f"{value:+.3g}" if kind == "shift" else f"{value:.3g}"
        text += "" if self.cascade == "off" else f", {self.cascade}"
        return f"{kind} {text}" + (f" of {self.artefact[:12]}" if self.artefact else "")


_KINDS = ("model", "share", "threshold", "shift", "target", "quality", "cost")


def large_probability(candidate: Candidate, log: PolicyLog, policy: Policy | None = None) -> Floats:
    """Probability [n] with which the candidate sends each logged request to the large model, without exploration.

    policy: of the router that a target, quality or cost is asked of; its own, since shares that it keeps and drift that
    it sees begin anew; NaN where what was logged of a request is not what that router reads. Unidentifiable: the log
    lacks what the candidate reads, of a router in every row. ValueError: no policy where one is
    needed, or a wish that it cannot answer (UnknownTarget among them).
    """
    n = len(log)
    if candidate.model is not None:
        return np.full(n, float(candidate.model == "large"))
    if candidate.share is not None:
        return np.full(n, candidate.share)
    if candidate.needs_artefact:
        if policy is None:
            raise ValueError("no router is in force, so a target, quality or cost means nothing: name an artefact")
        return _asked(policy, candidate, log)
    threshold = np.full(n, candidate.threshold) if candidate.shift is None else log.threshold + candidate.shift
    unknown = int((~np.isfinite(log.gain) | ~np.isfinite(threshold)).sum())
    if unknown:
        raise Unidentifiable(
            f"{unknown} of {n} logged decisions hold no score and threshold, so another threshold says nothing about "
            "them: they were made without a router, or by rule"
        )
    is_far = np.where(np.isfinite(log.ood), log.ood, 0.0) > EDGE  # there no threshold keeps its promise
    return ((log.gain >= threshold) | is_far).astype(np.float64)


def _asked(policy: Policy, candidate: Candidate, log: PolicyLog) -> Floats:
    """What the policy decides, request by request, as if each had come with the candidate's wish; NaN is not known."""
    rng = np.random.default_rng(0)  # never drawn from: the policy does not explore
    found = np.array([_decide(policy, candidate, row, rng) for row in log.rows], np.float64)
    if len(found) and not np.isfinite(found).any():
        raise Unidentifiable(
            f"none of {len(log)} logged decisions holds features that this router reads, so it cannot be asked about "
            "them: turn on `routing.log_features`, or name a router of their kind"
        )
    return found


def _decide(policy: Policy, candidate: Candidate, row: LoggedDecision, rng: np.random.Generator) -> float:
    """1 for the large model, 0 for the small one; NaN where the features that were logged do not tell.

    Those of a request that was decided before its prefill tell of a router that reads prefills only where it would
    decide before, too. ValueError: the wish cannot be answered.
    """
    circumstances = _circumstances(row)
    options = replace(
        row.options,
        target=candidate.target or "auto",
        quality=candidate.quality,
        quality_scale=QualityScale(candidate.quality_scale),
        cost=candidate.cost,
        max_cost_usd=row.options.max_cost_usd if circumstances.has_prices else None,
        explore=False,
        cascade=Cascade(candidate.cascade),
    )
    policy.check(options)
    if row.features is None:
        return np.nan
    if row.features.kind is policy.kind:
        return float(policy.decide(row.features, options, circumstances, rng).action is Action.LARGE)
    if policy.kind is not Kind.STATE or row.features.kind is not Kind.TEXT:
        return np.nan
    early = policy.decide_early(row.features, options, circumstances, rng)
    return np.nan if early is None else float(early.action is Action.LARGE)


def _circumstances(row: LoggedDecision) -> Circumstances:
    """Both costs as they were expected, whole: an offer whose prompt costs all and whose output costs nothing."""
    if not (np.isfinite(row.expected_small_usd) and np.isfinite(row.expected_large_usd)):
        return Circumstances()
    return Circumstances(small=Offer(prompt_usd=row.expected_small_usd), large=Offer(prompt_usd=row.expected_large_usd))
