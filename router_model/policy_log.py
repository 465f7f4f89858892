"""A deployment's own decisions as columns: the action with its probability, the evidence, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from router_model.features import Features
from router_model.logistic import Floats
from router_model.off_policy import Logged, Unidentifiable
from router_model.options import Action, RouteOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """One decision of the log. Numbers that were not recorded are NaN, and so is the score of an answer nobody graded.

    action: as decided; an answer that was escalated afterwards stays an answer of `small` (with its second chance).
    score: grade of the answer, 0 to 1. cost_small_usd and cost_large_usd: of the action taken what it cost, of the
    other what it would have; expected_*_usd: what both were expected to when deciding. gain, threshold: what was
    compared. keep_prob: probability that the row was kept at all; graded_prob: that its answer was graded.
    features: what the router read, None where it was not logged. options: what the request asked and was bound to.
    artefact: hash of the router that decided. at_s: Unix time.
    """

    action: Action
    propensity: float
    cluster: str
    score: float = np.nan
    cost_small_usd: float = np.nan
    cost_large_usd: float = np.nan
    expected_small_usd: float = np.nan
    expected_large_usd: float = np.nan
    p_small: float = np.nan
    p_large: float = np.nan
    gain: float = np.nan
    ood: float = np.nan
    threshold: float = np.nan
    keep_prob: float = 1.0
    graded_prob: float = 1.0
    features: Features | None = None
    options: RouteOptions = field(default_factory=RouteOptions)
    artefact: str = ""
    at_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLog:
    """n decisions, in the order in which they were made; each field [n], as in LoggedDecision."""

    went_large: NDArray[np.bool_]
    propensity: Floats
    clusters: NDArray[np.intp]
    score: Floats
    cost_small_usd: Floats
    cost_large_usd: Floats
    expected_small_usd: Floats
    expected_large_usd: Floats
    p_small: Floats
    p_large: Floats
    gain: Floats
    ood: Floats
    threshold: Floats
    keep_prob: Floats
    graded_prob: Floats
    rows: tuple[LoggedDecision, ...]

    @classmethod
    def of(cls, decisions: Sequence[LoggedDecision]) -> Self:
        """The log of these decisions."""
        rows = tuple(sorted(decisions, key=lambda one: one.at_s))
        columns = {
            name: np.array([getattr(row, name) for row in rows], np.float64)
            for name in (one.name for one in fields(cls))
            if name not in ("went_large", "clusters", "rows")
        }
        numbers: dict[str, int] = {}
        clusters = [numbers.setdefault(row.cluster, len(numbers)) for row in rows]
        return cls(
            went_large=np.array([row.action is Action.LARGE for row in rows], np.bool_),
            clusters=np.array(clusters, np.intp),
            rows=rows,
            **columns,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_graded(self) -> NDArray[np.bool_]:
        """Whose answers have a score [n]."""
        return np.isfinite(self.score)

    @property
    def has_alternative(self) -> NDArray[np.bool_]:
        """Which decisions [n] could have gone the other way, so that the log says something of other policies."""
        return self.propensity < 1

    @property
    def large_propensity(self) -> Floats:
        """Probability [n] of the large model under the policy that was logged."""
        return np.where(self.went_large, self.propensity, 1 - self.propensity)

    @property
    def cost_usd(self) -> Floats:
        """What each request cost [n]."""
        return np.where(self.went_large, self.cost_large_usd, self.cost_small_usd)

    @property
    def evidence(self) -> Floats:
        """What a reward model may read of each decision [n, d]: nothing that was only known because of the action."""
        columns = (self.p_small, self.p_large, self.gain, self.expected_small_usd, self.expected_large_usd)
        return np.stack(columns, axis=1)

    def take(self, rows: NDArray[np.bool_]) -> "PolicyLog":
        """Those of some rows."""
        return PolicyLog.of([row for row, is_taken in zip(self.rows, rows, strict=True) if is_taken])

    def for_grades(self) -> "PolicyLog":
        """The log for rewards that only graded rows have: each of those stands for all like it that chance passed over,
        so its keep_prob becomes that of being kept and graded.
        """
        return PolicyLog.of(
            [replace(row, keep_prob=row.keep_prob * row.graded_prob, graded_prob=1.0) for row in self.rows]
        )

    def logged(self, reward: Floats) -> Logged:
        """The log with this reward [n]. Unidentifiable: it is empty. ValueError: a reward that is no number."""
        if not len(self):
            raise Unidentifiable("the log holds no such decision: serve requests, and have answers graded")
        return Logged(self.went_large, self.propensity, reward, self.clusters, 1 / self.keep_prob)


def fill_small_cost(log: PolicyLog) -> PolicyLog:
    """The log with `cost_small_usd` known in every row whose other cost is known.

    Where only the large model's cost is there, the small one's is taken by the ratio of both sums over the rows that
    have both (1 without such a row).
    """
    both = np.isfinite(log.cost_small_usd) & np.isfinite(log.cost_large_usd)
    total = float(log.cost_large_usd[both].sum())
    ratio = float(log.cost_small_usd[both].sum()) / total if total > 0 else 1.0
    filled = np.where(np.isfinite(log.cost_small_usd), log.cost_small_usd, ratio * log.cost_large_usd)
    return PolicyLog(**{one.name: getattr(log, one.name) for one in fields(log)} | {"cost_small_usd": filled})
