"""From a wish for quality or cost to a threshold on the rank, with a confidence bound.

Requests are sent to the large model from the highest rank down. At every large share the curve holds the quality and
the cost, each with bounds from a bootstrap over groups, for the very ranking that decides.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.costs import RowCosts
from router_model.logistic import Floats
from router_model.options import QualityScale

N_SHARES = 101
"""Points of the curve: large shares of 0, 1, … 100 %."""

CONFIDENCE = 0.95
"""One-sided confidence of the lower bound, and the coverage of the band when doubled-sided at 90 %."""

ALWAYS_LARGE, NEVER_LARGE = -10.0, 10.0
"""Thresholds that every rank reaches and that none reaches: a rank is a gain in [-1, 1], times or by at most 8."""


class ConflictingWish(ValueError):
    """Quality and cost cannot both be had; the message says what the quality costs."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a threshold is to keep: a quality, 0 to 1 on its scale, a cost, 0 to 1 of that of all large, or both."""

    quality: float | None = None
    scale: QualityScale = QualityScale.GAP
    cost: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a number outside [0, 1], or when nothing is wished; `not 0 <= x` also refuses NaN."""
        if self.quality is None and self.cost is None:
            raise ValueError("nothing is wished: give a quality, a cost, or both")
        if self.quality is not None and not 0 <= self.quality <= 1:
            raise ValueError(f"the quality target is {self.quality}: use 0 (any quality) to 1 (that of all large)")
        if self.cost is not None and not 0 <= self.cost <= 1:
            raise ValueError(f"the cost budget is {self.cost}: use 0 to 1, a share of what all large costs")


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A threshold with what it promises.

    target: the quality that was wished, None for a cost alone. share: large share. pgr: recovered part of the gap;
    quality: part of the large model's score; cost: part of what all large costs; each with its 95 % bound on the side
    that a promise needs.
    """

    target: float | None
    threshold: float
    share: float
    pgr: float
    lower: float
    quality: float = 1.0
    quality_lower: float = 1.0
    cost: float = 1.0
    cost_upper: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class QualityCurve:
    """Each field float64 [N_SHARES], by large share. A rank at or above `thresholds[i]` goes to the large model.

    pgr: recovered part of the gap, 0 for all small and 1 for all large; it can exceed 1. lower and upper: bootstrap
    quantiles at 5 % and 95 %, each a one-sided 95 % bound. quality and cost, with bounds of the same kind: as parts of
    what all large reaches and costs.
    is_identified: the large model was better with 95 % confidence; without that the share stands in for pgr.
    """

    shares: Floats
    thresholds: Floats
    pgr: Floats
    lower: Floats
    upper: Floats
    quality: Floats
    quality_lower: Floats
    quality_upper: Floats
    cost: Floats
    cost_lower: Floats
    cost_upper: Floats
    is_identified: bool

    def point_for(self, quality: float, scale: QualityScale = QualityScale.GAP) -> CurvePoint:
        """The smallest large share that reaches `quality`, see `point`."""
        return self.point(Wish(quality, scale))

    def point(self, wish: Wish) -> CurvePoint:
        """The cheapest threshold that keeps a wish for quality, or the dearest that keeps one for cost alone.

        Quality is kept where the lower bound reaches it, at this share and at every larger one: testing from all large
        downwards and stopping at the first failure holds the 95 % for the whole search (fixed sequence testing, Bauer
        1991; Angelopoulos et al., Learn then Test, 2021). All large reaches 1 by definition. A cost alone is kept where
        the mean is within the budget, since control holds the spend there (controller.py); beside a quality, which
        leaves nothing to control, its upper bound must be.

        ConflictingWish: the quality costs more than the budget, or no share is within it.
        """
        if wish.quality is None:
            budget = 1.0 if wish.cost is None else wish.cost
            affordable = np.flatnonzero(self.cost <= budget + 1e-9)
            if not affordable.size:
                raise ConflictingWish(
                    f"the cost budget is {budget:.1%} of what the large model alone costs, but the small model alone "
                    f"costs {self.cost[0]:.1%} of it: allow at least that"
                )
            return self._at(int(affordable[-1]), None)
        bound = self.lower if wish.scale is QualityScale.GAP else self.quality_lower
        reached = _run((bound >= wish.quality - 1e-9)[::-1])
        point = self._at(len(bound) - max(reached, 1), wish.quality)
        if wish.cost is not None and point.cost_upper > wish.cost + 1e-9:
            of = "the gap between the models" if wish.scale is QualityScale.GAP else "the large model's quality"
            raise ConflictingWish(
                f"{wish.quality:.1%} of {of} costs up to {point.cost_upper:.1%} of what the large model alone costs, "
                f"and the budget is {wish.cost:.1%}: ask for less quality, or allow more cost"
            )
        return point

    def threshold_at(self, share: float) -> float:
        """The threshold that sends about `share` (0 to 1) of requests like the training data to the large model."""
        return float(np.interp(share, self.shares, self.thresholds))

    def _at(self, i: int, target: float | None) -> CurvePoint:
        return CurvePoint(
            target,
            float(self.thresholds[i]),
            float(self.shares[i]),
            float(self.pgr[i]),
            float(self.lower[i]),
            float(self.quality[i]),
            float(self.quality_lower[i]),
            float(self.cost[i]),
            float(self.cost_upper[i]),
        )


def fit_curve(
    ranks: Floats,
    labels: Floats,
    groups: NDArray[np.intp],
    rng: np.random.Generator,
    n_draws: int = 400,
    *,
    costs: RowCosts | None = None,
    always: NDArray[np.bool_] | None = None,
) -> QualityCurve:
    """The curve of out-of-fold ranks [n], labels [n, 2] (small, large) and group numbers [n].

    Whole groups are drawn with replacement, so that near duplicates do not narrow the band. costs: of the rows; None
    takes the small model as free, so that cost is the large share. always: rows that go to the large model whatever the
    threshold.
    """
    ranks = ranks if always is None else np.where(always, np.inf, ranks)
    order = np.argsort(-ranks, kind="stable")
    ranked, labels, members = ranks[order], labels[order], groups[order]
    n = len(ranks)
    n_always = 0 if always is None else int(always.sum())
    cuts = np.maximum(np.round(np.linspace(0, 1, N_SHARES) * n).astype(np.intp), n_always)
    # Cut between different ranks only: a threshold cannot part equal ones, so the cut moves up past them.
    cuts = np.where(cuts > n_always, np.searchsorted(-ranked, -ranked[np.maximum(cuts, 1) - 1], side="right"), n_always)
    thresholds = np.concatenate([[NEVER_LARGE], ranked])[cuts]
    thresholds[cuts == n_always] = NEVER_LARGE
    thresholds[-1] = ALWAYS_LARGE
    rows = _Rows(labels, costs, order, cuts)
    n_groups = int(groups.max()) + 1
    drawn = (np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)[members] for _ in range(n_draws))
    draws = [rows.sums(counts.astype(np.float64)) for counts in drawn]
    gain, cost = np.stack([draw.gain for draw in draws]), np.stack([draw.cost for draw in draws])
    total, small = np.array([draw.total for draw in draws]), np.array([draw.small for draw in draws])
    seen = rows.sums(np.ones(n))
    is_identified = bool(np.quantile(total, 1 - CONFIDENCE) > 0)
    realised = cuts / n
    if is_identified:
        ratios = gain / np.where(total > 0, total, np.inf)[:, None]
        ratios[total <= 0] = -np.inf  # a draw without a gap counts against every share but the last
        ratios[:, -1] = 1.0
        lower, upper = _bounds(ratios)
        recovered = seen.gain / seen.total
    else:
        recovered = lower = upper = realised
    quality = (small[:, None] + gain) / np.maximum(small + total, 1e-12)[:, None]
    quality[:, -1] = 1.0
    cost[:, -1] = 1.0  # nothing is asked of the router then, so its prefill costs nothing either
    quality_lower, quality_upper = _bounds(quality)
    cost_lower, cost_upper = _bounds(cost)
    mean_quality = (seen.small + seen.gain) / max(seen.small + seen.total, 1e-12)
    mean_quality[-1] = 1.0
    return QualityCurve(
        shares=realised,
        thresholds=thresholds,
        pgr=recovered,
        lower=lower,
        upper=upper,
        quality=mean_quality,
        quality_lower=quality_lower,
        quality_upper=quality_upper,
        cost=np.append(seen.cost[:-1], 1.0),
        cost_lower=cost_lower,
        cost_upper=cost_upper,
        is_identified=is_identified,
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of one draw: gain [N_SHARES] over the small model at each cut and in all, the small model's score, and the
    cost [N_SHARES] as a part of that of all large.
    """

    gain: Floats
    total: float
    small: float
    cost: Floats


class _Rows:
    """Ranked rows, binned by the first cut that holds them, so that a draw is three weighted counts."""

    def __init__(self, labels: Floats, costs: RowCosts | None, order: NDArray[np.intp], cuts: NDArray[np.intp]) -> None:
        self._bins = np.searchsorted(cuts, np.arange(len(labels)), side="right")
        self._n_cuts = len(cuts)
        self._small, self._gain = labels[:, 0], labels[:, 1] - labels[:, 0]
        if costs is None:
            self._extra, self._base, self._all = np.ones(len(labels)), np.zeros(len(labels)), np.ones(len(labels))
        else:
            self._extra, self._base, self._all = costs.extra[order], costs.small[order], costs.large[order]

    def sums(self, weights: Floats) -> _Sums:
        """Sums over rows that count `weights` [n] times."""
        gain = self._up_to_cuts(weights * self._gain)
        spent = float(weights @ self._base) + self._up_to_cuts(weights * self._extra)
        cost = spent / max(float(weights @ self._all), 1e-300)
        return _Sums(gain, float(gain[-1]), float(weights @ self._small), cost)

    def _up_to_cuts(self, values: Floats) -> Floats:
        summed: Floats = np.cumsum(np.bincount(self._bins, values, minlength=self._n_cuts))
        return summed


def _bounds(draws: Floats) -> tuple[Floats, Floats]:
    lower, upper = np.quantile(draws, [1 - CONFIDENCE, CONFIDENCE], axis=0, method="inverted_cdf")
    return lower, upper


def _run(holds: NDArray[np.bool_]) -> int:
    """For how many of the first points `holds` without a gap."""
    fails = np.flatnonzero(~holds)
    return int(fails[0]) if fails.size else len(holds)
