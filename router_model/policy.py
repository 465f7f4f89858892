"""The policy: from a request's features to a decision with a known propensity.

Which models could answer at all is settled before (by the gateway: window, abilities, budget); the policy chooses among
those.
"""

import enum
from dataclasses import dataclass, field

import numpy as np

from router_model.artefact import RouterArtefact
from router_model.features import Features, Kind
from router_model.score import EDGE, goes_large


class Action(enum.StrEnum):
    """The model that a request is sent to."""

    SMALL = "small"
    LARGE = "large"

    @property
    def other(self) -> "Action":
        """The other model."""
        return Action.LARGE if self is Action.SMALL else Action.SMALL


class Reason(enum.StrEnum):
    """Why. Stored in decision rows, so stable.

    out_of_domain: the request is unlike the training data, where no threshold keeps its promise, so it goes to large.
    """

    WORTH_IT = "score_above_threshold"
    NOT_WORTH_IT = "score_below_threshold"
    OUT_OF_DOMAIN = "out_of_domain"
    EXPLORED = "explored"
    ONLY_ELIGIBLE = "only_eligible"
    PINNED = "pinned"


class UnknownTarget(ValueError):
    """The artefact has no threshold of that name; the message lists those it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """What a request asks of the policy.

    target: name of a threshold in the artefact. quality: part of the gap to recover, 0 to 1, instead of the target.
    eligible: the models that could answer. pinned: the model of the conversation's last turn; large stays large, small
    may only go up. explore: False for tenants that opted out.
    """

    target: str = "auto"
    quality: float | None = None
    eligible: frozenset[Action] = field(default_factory=lambda: frozenset(Action))
    pinned: Action | None = None
    explore: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was chosen and on what evidence.

    score at or above threshold goes to the large model. ood: distance to the training data, above 1 is outside.
    propensity: probability that the policy takes this action for this request, 1.0 where it was deterministic. Expected
    tokens are None where the training data had no counts.
    """

    action: Action
    reason: Reason
    score: float
    threshold: float
    p_small: float
    p_large: float
    ood: float
    propensity: float
    explored: bool
    expected_small_tokens: float | None
    expected_large_tokens: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A router in force.

    epsilon: probability of taking the other model, to learn from. max_regret: requests whose score lies further than
    this from the threshold are never explored.
    """

    artefact: RouterArtefact
    epsilon: float = 0.05
    max_regret: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for an epsilon outside [0, 0.5] or a negative max_regret."""
        if not 0 <= self.epsilon <= 0.5:
            raise ValueError(f"epsilon is {self.epsilon}: use 0 (never explore) to 0.5")
        if self.max_regret < 0:
            raise ValueError(f"max_regret is {self.max_regret}: use 0 or more")

    @property
    def kind(self) -> Kind:
        """The kind of features that `decide` needs."""
        return self.artefact.model.encoder.kind

    def threshold(self, options: RouteOptions) -> float:
        """The threshold that the options ask for. UnknownTarget; ValueError for a quality outside [0, 1]."""
        if options.quality is not None:
            return self.artefact.curve.point_for(options.quality).threshold
        targets = self.artefact.manifest.targets
        if options.target not in targets:
            raise UnknownTarget(f"the router has no target '{options.target}': use one of {', '.join(sorted(targets))}")
        return targets[options.target].threshold

    def decide(self, features: Features, options: RouteOptions, rng: np.random.Generator) -> Decision:
        """Choose a model.

        ValueError: nothing is eligible, or the features are not those of the artefact; UnknownTarget.
        """
        threshold = self.threshold(options)
        seen = self.artefact.model.predict([features])
        score, ood = float(seen.score[0]), float(seen.ood[0])
        action, reason, may_explore = self._choose(score, threshold, ood, options)
        propensity, explored = 1.0, False
        if may_explore:
            explored = bool(rng.random() < self.epsilon)
            propensity = self.epsilon if explored else 1.0 - self.epsilon
            if explored:
                action, reason = action.other, Reason.EXPLORED
        return Decision(
            action=action,
            reason=reason,
            score=score,
            threshold=threshold,
            p_small=float(seen.p_small[0]),
            p_large=float(seen.p_large[0]),
            ood=ood,
            propensity=propensity,
            explored=explored,
            expected_small_tokens=None if seen.small_tokens is None else float(seen.small_tokens[0]),
            expected_large_tokens=None if seen.large_tokens is None else float(seen.large_tokens[0]),
        )

    def _choose(self, score: float, threshold: float, ood: float, options: RouteOptions) -> tuple[Action, Reason, bool]:
        """The greedy action, its reason, and whether exploration may replace it."""
        if not options.eligible:
            raise ValueError("no model is eligible: refuse the request before asking the policy")
        if len(options.eligible) == 1:
            (only,) = options.eligible
            return only, Reason.ONLY_ELIGIBLE, False
        worth_it = bool(goes_large(np.array(score), np.array(ood), threshold))
        if options.pinned is Action.LARGE or (options.pinned is Action.SMALL and not worth_it):
            return options.pinned, Reason.PINNED, False
        reason = Reason.WORTH_IT if worth_it else Reason.NOT_WORTH_IT
        if ood > EDGE:
            reason = Reason.OUT_OF_DOMAIN
        may_explore = (
            options.explore
            and options.pinned is None
            and self.epsilon > 0
            and abs(score - threshold) <= self.max_regret
        )
        return Action.LARGE if worth_it else Action.SMALL, reason, may_explore
