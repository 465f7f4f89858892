"""What is known of every policy's quality and cost on the requests of a period, and where from.

Two sources. A shadow run gives both models' graded answers to one request: a policy's quality is then simply read off.
Exploration gives one graded answer with a known probability: a doubly robust estimate. Pairs are several times tighter.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.reports.facts import Facts
from gateway.reports.logged import policy_log
from router_model.logistic import Floats
from router_model.off_policy import Contributions, Estimate, Logged, Unidentifiable, difference, dr_terms, estimate
from router_model.options import Action
from router_model.policy_log import PolicyLog
from router_model.reward_model import cross_fitted_rewards

MIN_PAIRS = 30
"""Fewer pairs than this say nothing."""


class Knowledge(ABC):
    """Estimates for policies given as P(large) [n] over the rows of `log`."""

    source: str
    log: PolicyLog
    _weights: Logged

    @property
    def n(self) -> int:
        """Rows that it comes from."""
        return len(self.log)

    @abstractmethod
    def quality_terms(self, asked: Floats) -> Contributions:
        """Mean score under a policy. Unidentifiable."""

    @abstractmethod
    def cost_terms(self, asked: Floats) -> Contributions:
        """Mean cost of a request under a policy, USD. Unidentifiable."""

    @abstractmethod
    def current_quality(self) -> Contributions:
        """Mean score of the answers that clients got."""

    def quality(self, asked: Floats) -> Estimate:
        """Mean score under a policy with its interval. Unidentifiable."""
        return estimate(self._weights, self.quality_terms(asked))

    def cost(self, asked: Floats) -> Estimate:
        """Mean cost of a request under a policy with its interval. Unidentifiable."""
        return estimate(self._weights, self.cost_terms(asked))

    def current(self) -> tuple[Estimate, Estimate]:
        """Quality and cost as they were."""
        return estimate(self._weights, self.current_quality()), estimate(self._weights, self._plain(self.log.cost_usd))

    def quality_over(self, asked: Floats) -> Estimate:
        """Quality as it was less that under a policy, paired. Unidentifiable."""
        return difference(self._weights, self.current_quality(), self.quality_terms(asked))

    def _plain(self, terms: Floats) -> Contributions:
        return Contributions(float(np.average(terms, weights=self._weights.weight)), terms, float(len(terms)))


@dataclass(eq=False)
class PairKnowledge(Knowledge):
    """From shadow pairs. scores float64 [n, 2]: both models' grades. keep_prob [n]: of being drawn for a shadow run.
    small_usd [n]: what the small model's answer cost, without a second one, since the small grade is without it, too.
    """

    log: PolicyLog
    scores: Floats
    keep_prob: Floats
    small_usd: Floats
    source: str = "shadow_pairs"

    def __post_init__(self) -> None:
        """The rows' weights, in the form that estimates take."""
        log = self.log
        self._weights = Logged(log.went_large, log.propensity, log.score, log.clusters, 1 / self.keep_prob)

    def quality_terms(self, asked: Floats) -> Contributions:
        """Read off."""
        return self._plain(self.scores[:, 0] + asked * (self.scores[:, 1] - self.scores[:, 0]))

    def cost_terms(self, asked: Floats) -> Contributions:
        """Read off."""
        return self._plain(self.small_usd + asked * (self.log.cost_large_usd - self.small_usd))

    def current_quality(self) -> Contributions:
        """Of what clients got, escalations included."""
        return self._plain(self.log.score)


@dataclass(eq=False)
class ExploredKnowledge(Knowledge):
    """From graded decisions that could have gone the other way."""

    log: PolicyLog
    predicted: Floats
    costs_predicted: Floats
    source: str = "exploration"

    def __post_init__(self) -> None:
        """The log with scores, and with costs, as rewards."""
        self._weights = self.log.logged(self.log.score)
        self._costs = self.log.logged(self.log.cost_usd)

    def quality_terms(self, asked: Floats) -> Contributions:
        """Doubly robust."""
        return dr_terms(self._weights, asked, self.predicted)

    def cost_terms(self, asked: Floats) -> Contributions:
        """Doubly robust."""
        return dr_terms(self._costs, asked, self.costs_predicted)

    def current_quality(self) -> Contributions:
        """The mean of what was logged; by the same formula, so that differences are paired."""
        return self.quality_terms(self.log.large_propensity)


def knowledge_of(facts: Sequence[Facts], rng: np.random.Generator) -> Knowledge:
    """The best source that these decisions offer.

    Unidentifiable: fewer than MIN_PAIRS shadow pairs, and too little graded exploration; the message says what is
    missing.
    """
    known = (one for one in facts if one.is_routed and one.answer_score is not None and _pair(one) is not None)
    pairs = sorted(known, key=lambda one: one.created_at)  # the log's order
    if len(pairs) >= MIN_PAIRS:
        log = policy_log(pairs)
        scores = np.array([_pair(one) for one in pairs], np.float64)
        drawn = np.array([min(grade.keep_prob for grade in one.grades.values()) for one in pairs])
        alone = np.array([np.nan if one.went_large else one.small_answer_usd for one in pairs])
        small_usd = np.where(np.isfinite(alone), alone, log.cost_small_usd)
        return PairKnowledge(log, scores, np.maximum(drawn, 1e-6), small_usd)
    log = policy_log([one for one in facts if one.is_routed])
    graded = log.take(log.is_graded & log.has_alternative & np.isfinite(log.cost_usd)).for_grades()
    if not len(graded):
        raise Unidentifiable(
            "no answer was graded where the router could have chosen the other model: send outcomes to "
            "/v1/router/outcomes, or start a shadow run by /v1/router/shadow"
        )
    by_score, by_cost = graded.logged(graded.score), graded.logged(graded.cost_usd)
    found = ExploredKnowledge(
        graded,
        cross_fitted_rewards(by_score, graded.evidence, rng),
        cross_fitted_rewards(by_cost, graded.evidence, rng),
    )
    found.quality(graded.large_propensity)  # raises where not even the policy as it was can be judged
    return found


def _pair(one: Facts) -> tuple[float, float] | None:
    small, large = (one.grades.get(action) for action in Action)
    if small is None or large is None or small.score is None or large.score is None:
        return None
    return small.score, large.score
