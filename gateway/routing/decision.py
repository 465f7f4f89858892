"""A routing decision: which model, why, on what evidence, with what probability."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.storage.identifiers import new_id
from router_model.circumstances import Circumstances
from router_model.features import Features
from router_model.options import RouteOptions


class Reason:
    """Reasons that the gateway itself gives; the policy's own are added to them. Stored, so stable."""

    EXPLICIT = "explicit"
    ONLY_ELIGIBLE = "only_eligible"
    NO_ROUTER = "no_router"
    OVER_BUDGET = "over_budget"
    TOO_SLOW = "too_slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """model: alias of the chosen one, before any escalation.

    score: predicted gain of the large model. rank: what was compared with threshold, the gain by this request's costs.
    Both are None without a router. propensity: probability with which the policy takes this action; 1.0 for
    deterministic choices. is_calibrated: a promise about quality covers this request. is_early: decided before the
    small model's prefill. pinned: the conversation's last model decided. exceeds: limits that no model keeps.
    session_hash: of the conversation's key, hexadecimal. wanted: the numbers in force, by name (quality, cost,
    max_cost_usd, max_ttft_s). expected_*: predictions by alias. load: the engine's counts at the time. read: what the
    router read, None where it is not kept. overhead_s: the decision itself, without the prefill that it reads.

    options, circumstances: what the policy was asked, for the cascade; no part of what is recorded.
    """

    id: uuid.UUID = field(default_factory=new_id)
    model: str
    reason: str
    policy: str
    eligible: tuple[str, ...]
    ineligible: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    wanted: Mapping[str, float] = field(default_factory=dict)
    route: str = ""
    session_hash: str | None = None
    score: float | None = None
    rank: float | None = None
    threshold: float | None = None
    p_small: float | None = None
    p_large: float | None = None
    ood: float | None = None
    expected_tokens: Mapping[str, float] = field(default_factory=dict)
    expected_cost_usd: Mapping[str, float] = field(default_factory=dict)
    expected_ttft_s: Mapping[str, float] = field(default_factory=dict)
    load: Mapping[str, float] = field(default_factory=dict)
    propensity: float = 1.0
    explored: bool = False
    pinned: bool = False
    is_calibrated: bool = True
    is_early: bool = False
    exceeds: tuple[str, ...] = ()
    read: Features | None = field(default=None, repr=False)
    artefact_hash: str | None = None
    features_version: str | None = None
    overhead_s: float = 0.0
    options: RouteOptions | None = field(default=None, repr=False)
    circumstances: Circumstances | None = field(default=None, repr=False)

    @property
    def features(self) -> bytes | None:
        """What the router read, packed for its row: only when that is written, since no request need wait for it."""
        return None if self.read is None else self.read.pack()
