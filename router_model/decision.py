"""What the policy decided about a request, why, and on what evidence."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from router_model.options import Action, RouteOptions


class Reason(enum.StrEnum):
    """Why. Stored in decision rows, so stable.

    OUT_OF_DOMAIN: unlike the training data, where no threshold keeps its promise, so it goes to large. UNCALIBRATED:
    the router has drifted, so no request is covered, with the same consequence. OVER_BUDGET, TOO_SLOW: a limit of the
    request itself ruled the other model out, or no model keeps it. OVERLOAD: it would have gone to large without the
    load. CLEAR_CASE: decided before any prefill.
    """

    WORTH_IT = "score_above_threshold"
    NOT_WORTH_IT = "score_below_threshold"
    OUT_OF_DOMAIN = "out_of_domain"
    UNCALIBRATED = "uncalibrated"
    EXPLORED = "explored"
    ONLY_ELIGIBLE = "only_eligible"
    PINNED = "pinned"
    OVER_BUDGET = "over_budget"
    TOO_SLOW = "too_slow"
    OVERLOAD = "overload"
    CLEAR_CASE = "clear_case"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was chosen and on what evidence.

    rank at or above threshold goes to the large model. score: expected gain of the large model; rank: the same by this
    request's costs, equal to score where costs say nothing. ood: distance to the training data, above 1 is outside.
    propensity: probability that the policy takes this action for this request, 1.0 where it was deterministic.

    is_calibrated: the promise of a quality target covers this request, and the action keeps it. is_early: decided
    without a prefill; then score and rank are the lower ends of intervals (rank_high the upper), and p_small, p_large
    and ood are None. expected_*: predictions, None where nothing is known of them. exceeds: limits of the request that
    the chosen model is expected to break, since no model keeps them. overspent: requests on the large model beyond the
    wanted share or spend that this one adds, None where none is kept. options: what was asked.
    """

    action: Action
    reason: Reason
    score: float
    rank: float
    threshold: float
    p_small: float | None
    p_large: float | None
    ood: float | None
    propensity: float
    explored: bool
    expected_small_tokens: float | None
    expected_large_tokens: float | None
    is_calibrated: bool = True
    is_early: bool = False
    expected_cost_usd: Mapping[Action, float] | None = None
    expected_ttft_s: Mapping[Action, float] | None = None
    rank_high: float | None = None
    exceeds: tuple[Reason, ...] = ()
    overspent: float | None = None
    options: RouteOptions = field(default_factory=RouteOptions)
