"""What a request asks of the policy: a wish for quality or cost, its limits, and what its conversation binds it to."""

import enum
import math
from dataclasses import dataclass, field


class Action(enum.StrEnum):
    """The model that a request is sent to."""

    SMALL = "small"
    LARGE = "large"

    @property
    def other(self) -> "Action":
        """The other model."""
        return Action.LARGE if self is Action.SMALL else Action.SMALL


class QualityScale(enum.StrEnum):
    """What a quality of 0 to 1 is a part of.

    large: of the large model's mean score, q(policy) / q(large). gap: of the gap between the models (PGR): 0 is the
    small model's quality, 1 the large one's.
    """

    LARGE = "large"
    GAP = "gap"


class Cascade(enum.StrEnum):
    """When the large model answers again what the small one answered, from never to most often.

    off: never. validation: where the answer failed (`escalation.failure`). confidence: also where it is unlikely to be
    right (`Policy.judge`).
    """

    OFF = "off"
    VALIDATION = "validation"
    CONFIDENCE = "confidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """One request's wishes. None means not asked.

    target: a named threshold of the artefact, used where neither quality nor cost is given. quality: 0 to 1, on
    quality_scale. cost: budget, 0 to 1, as a share of what sending everything to the large model costs. max_cost_usd
    and max_ttft_s: limits on this request's expected cost and time to the first token. eligible: the models that could
    answer. pinned: the model of the conversation's last turn. in_tool_loop: the last message is a tool's result, so the
    model must not change. route: kind of traffic, for its own calibration map. explore: False for those who opted out.
    sheds_load: the quality is a default of the server, which overload may undercut; a request's own is always kept.
    cascade: the second chance that the small model's whole answer is sure to get before any of it is sent. Thresholds
    and promises count on it; off for whoever sends what comes, and where it is only possible.

    ValueError: a number out of its range.
    """

    target: str = "auto"
    quality: float | None = None
    quality_scale: QualityScale = QualityScale.LARGE
    cost: float | None = None
    max_cost_usd: float | None = None
    max_ttft_s: float | None = None
    eligible: frozenset[Action] = field(default_factory=lambda: frozenset(Action))
    pinned: Action | None = None
    in_tool_loop: bool = False
    route: str = ""
    explore: bool = True
    sheds_load: bool = False
    cascade: Cascade = Cascade.OFF

    def __post_init__(self) -> None:
        """Check the ranges; `not 0 <= x` also refuses NaN. A plain string is taken as the scale or cascade of that
        name.
        """
        if self.quality is not None and not 0 <= self.quality <= 1:
            raise ValueError(f"the quality target is {self.quality}: use 0 (any quality) to 1 (that of all large)")
        if self.cost is not None and not 0 <= self.cost <= 1:
            raise ValueError(f"the cost budget is {self.cost}: use 0 to 1, a share of what all large costs")
        for name, limit in (("max_cost_usd", self.max_cost_usd), ("max_ttft_s", self.max_ttft_s)):
            if limit is not None and not (limit >= 0 and math.isfinite(limit)):
                raise ValueError(f"{name} is {limit}: use a finite number from 0")
        object.__setattr__(self, "quality_scale", QualityScale(self.quality_scale))
        object.__setattr__(self, "cascade", Cascade(self.cascade))
