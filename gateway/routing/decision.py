"""A routing decision: which model, why, on what evidence, with what probability."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.storage.identifiers import new_id


class Reason:
    """Reasons that the gateway itself gives; the policy's own are added to them. Stored, so stable."""

    EXPLICIT = "explicit"
    ONLY_ELIGIBLE = "only_eligible"
    NO_ROUTER = "no_router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """model: alias of the chosen one. score and threshold: what was compared, None without a router.

    propensity: probability with which the policy takes this action; 1.0 for deterministic choices. overhead_s: the
    decision itself, without the prefill that it reads.
    """

    id: uuid.UUID = field(default_factory=new_id)
    model: str
    reason: str
    policy: str
    eligible: tuple[str, ...]
    ineligible: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    score: float | None = None
    threshold: float | None = None
    p_small: float | None = None
    p_large: float | None = None
    ood: float | None = None
    expected_tokens: Mapping[str, float] = field(default_factory=dict)
    propensity: float = 1.0
    explored: bool = False
    artefact_hash: str | None = None
    features_version: str | None = None
    overhead_s: float = 0.0
