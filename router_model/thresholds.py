"""From a wish for quality or cost to a threshold on the rank, with a confidence bound.

Requests are sent to the large model from the highest rank down, and with a second chance small answers are answered
again by the same threshold. At every large share the curve holds the quality and the cost of both together, each with
bounds from a bootstrap over groups, for the very ranking that decides. Each bound counts one more group than was seen,
at its worst (group_draws.py), so that it holds with few rows, too.

    rank >= threshold                     large             costs the router's prefill and the large answer
    else second rank >= threshold         small, then large costs both answers
    else                                  small
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.costs import RowCosts
from router_model.group_draws import GroupDraws, lower_bound, upper_bound
from router_model.logistic import Floats
from router_model.options import QualityScale

N_SHARES = 101
"""Points of the curve: large shares of 0, 1, … 100 %."""

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

    target: the quality that was wished, None for a cost alone. share: large share, second answers included. pgr:
    recovered part of the gap; quality: part of the large model's score; cost: part of what all large costs; each with
    its 95 % bound on the side that a promise needs.
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

    shares: of requests that the large model answers, at first or again. first_shares: of those that it answers at
    first; without second chances the same.
    pgr: recovered part of the gap, 0 for all small and 1 for all large; it can exceed 1. lower and upper: each a
    one-sided 95 % bound. quality and cost, with bounds of the same kind: as parts of
    what all large reaches and costs. None of them need rise with the share: a request that is sent up at once is not
    paid for twice.
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
    first_shares: Floats
    is_identified: bool

    @property
    def has_second_chances(self) -> bool:
        """Whether small answers are answered again at any threshold."""
        return bool((self.first_shares < self.shares).any())

    def point_for(self, quality: float, scale: QualityScale = QualityScale.GAP) -> CurvePoint:
        """The cheapest threshold that keeps `quality`, see `point`."""
        return self.point(Wish(quality, scale))

    def point(self, wish: Wish) -> CurvePoint:
        """The cheapest threshold that keeps a wish for quality, or the lowest that keeps one for cost alone.

        Quality is kept where the lower bound reaches it, at this share and at every larger one: testing from all large
        downwards and stopping at the first failure holds the 95 % for the whole search (fixed sequence testing, Bauer
        1991; Angelopoulos et al., Learn then Test, 2021). All large reaches 1 by definition. Any of those that passed
        may then be taken: without second chances the smallest share, with them the cheapest by its mean, since a lower
        threshold may cost less by paying for fewer small answers in vain. A cost alone is kept where
        the mean is within the budget, since control holds the spend there (controller.py); beside a quality, which
        leaves nothing to control, its upper bound must be.

        ConflictingWish: the quality costs more than the budget, or no share is within it.
        """
        if wish.quality is None:
            budget = 1.0 if wish.cost is None else wish.cost
            affordable = np.flatnonzero(self.cost <= budget + 1e-9)
            if not affordable.size:
                again = ", with what has to be answered again," if self.has_second_chances else ""
                raise ConflictingWish(
                    f"the cost budget is {budget:.1%} of what the large model alone costs, but the small model alone"
                    f"{again} costs {self.cost[0]:.1%} of it: allow at least that"
                )
            return self._at(int(affordable[-1]), None)
        bound = self.lower if wish.scale is QualityScale.GAP else self.quality_lower
        reached = _run((bound >= wish.quality - 1e-9)[::-1])
        least = len(bound) - max(reached, 1)
        if self.has_second_chances:
            least += int(np.argmin(self.cost[least:]))
        point = self._at(least, wish.quality)
        if wish.cost is not None and point.cost_upper > wish.cost + 1e-9:
            of = "the gap between the models" if wish.scale is QualityScale.GAP else "the large model's quality"
            raise ConflictingWish(
                f"{wish.quality:.1%} of {of} costs up to {point.cost_upper:.1%} of what the large model alone costs, "
                f"and the budget is {wish.cost:.1%}: ask for less quality, or allow more cost"
            )
        return point

    def threshold_at(self, share: float) -> float:
        """The threshold by which the large model answers about `share` (0 to 1) of requests like the training data."""
        return float(np.interp(share, self.shares, self.thresholds))

    def first_share_at(self, threshold: float) -> float:
        """The share that one of `thresholds` sends to the large model at first."""
        return float(self.first_shares[np.argmax(self.thresholds <= threshold)])

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
    second: Floats | None = None,
    weights: Floats | None = None,
) -> QualityCurve:
    """The curve of out-of-fold ranks [n], labels [n, 2] (small, large; 0 to 1) and group numbers [n].

    Groups are weighted as wholes, so that near duplicates do not narrow the band. costs: of the rows; None takes the
    small model as free, so that cost is the large share. always: rows that go to the large model whatever the
    threshold. second: ranks [n] that small answers are compared with the same threshold by, to be answered again; inf
    always are, -inf never. None: none is. weights [n]: importance weights, of which only ratios count; None is all
    equal. Shares and means are weighted by them, too.

    ValueError: see `GroupDraws`.
    """
    ranks = ranks if always is None else np.where(always, np.inf, ranks)
    # The large model answers a row, at first or again, from the higher of its ranks down.
    reached = ranks if second is None else np.maximum(ranks, second)
    order = np.argsort(-reached, kind="stable")
    ranked, labels = reached[order], labels[order]
    draws = GroupDraws(groups[order], None if weights is None else weights[order])
    n = len(ranks)
    n_always = int(np.isposinf(reached).sum())
    # Each share's rows are those whose middle, in weight, lies below it.
    middles = (np.cumsum(draws.rows) - draws.rows / 2) / n
    cuts = np.maximum(np.searchsorted(middles, np.linspace(0, 1, N_SHARES)), n_always)
    cuts[-1] = n
    # Cut between different ranks only: a threshold cannot part equal ones, so the cut moves up past them.
    cuts = np.where(cuts > n_always, np.searchsorted(-ranked, -ranked[np.maximum(cuts, 1) - 1], side="right"), n_always)
    thresholds = np.concatenate([[NEVER_LARGE], ranked])[cuts]
    thresholds[cuts == n_always] = NEVER_LARGE
    thresholds[-1] = ALWAYS_LARGE
    firsts = np.searchsorted(-thresholds, -ranks[order], side="left")
    rows = _Rows(labels, costs, order, cuts, firsts)
    seen = rows.sums(draws.rows)
    realised = np.concatenate([[0.0], np.cumsum(draws.rows)])[cuts] / n
    realised[-1] = 1.0
    bounds = _Bounds.of(rows, draws, rng, n_draws)
    recovered = lower = upper = realised
    if bounds.is_identified:
        recovered = seen.gain / seen.total
        lower, upper = bounds.pgr
        if cuts[0] == 0:
            lower[0] = upper[0] = 0.0  # by definition, as all large is 1
    mean_quality = (seen.small + seen.gain) / max(seen.small + seen.total, 1e-12)
    mean_quality[-1] = 1.0
    quality_lower, quality_upper = bounds.quality
    cost_lower, cost_upper = bounds.cost
    return QualityCurve(
        shares=realised,
        thresholds=thresholds,
        pgr=recovered,
        lower=lower,
        upper=upper,
        quality=mean_quality,
        quality_lower=quality_lower,
        quality_upper=quality_upper,
        # Nothing is asked of the router where all is large, so its prefill costs nothing either.
        cost=np.append(seen.cost[:-1], 1.0),
        cost_lower=cost_lower,
        cost_upper=cost_upper,
        first_shares=np.cumsum(np.bincount(firsts, draws.rows, minlength=len(cuts))) / n,
        is_identified=bounds.is_identified,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Bounds:
    """Lower and upper bounds, each float64 [N_SHARES], and whether the large model is better at all.

    The unseen group is at its worst for each: for the lower ones of quality it stays on the small model at every
    point, scoring 0 where the large one scores 1; or, for a part of the gap below a half, where that is worse, it goes
    up and scores 0 where the small one scores 1. For the cost it is the dearest row that was seen, paid for in the
    dearest way.
    """

    pgr: tuple[Floats, Floats]
    quality: tuple[Floats, Floats]
    cost: tuple[Floats, Floats]
    is_identified: bool

    @classmethod
    def of(cls, rows: "_Rows", draws: GroupDraws, rng: np.random.Generator, n_draws: int) -> "_Bounds":
        """Those in `n_draws` draws of the rows."""
        sums, drawn = [], []
        for weights, unseen in draws.draw(rng, n_draws):
            sums.append(rows.sums(weights))
            drawn.append(unseen)
        gain, spent = np.stack([one.gain for one in sums]), np.stack([one.spent for one in sums])
        total, small, all_large, extra = np.array(
            [(one.total, one.small, one.all_large, unseen) for one, unseen in zip(sums, drawn, strict=True)]
        ).T[:, :, None]
        return cls(
            pgr=_framed(_least_recovered(gain, total, extra), 1 - _least_recovered(total - gain, total, extra)),
            quality=_framed(
                (small + gain) / np.maximum(small + total + extra, 1e-12),
                (small + gain + extra) / np.maximum(small + total, 1e-12),
            ),
            cost=_framed(
                (spent + extra * rows.least.spent) / np.maximum(all_large + extra * rows.least.large, 1e-300),
                (spent + extra * rows.most.spent) / np.maximum(all_large + extra * rows.most.large, 1e-300),
            ),
            is_identified=bool(lower_bound(total - extra)[0] > 0),
        )


def _least_recovered(gain: Floats, total: Floats, extra: Floats) -> Floats:
    """The least part of the gap in each draw [n_draws, N_SHARES], -inf where there may be no gap.

    It is below q where gain - q * total is below 0 for the seen rows and an unseen one, of which that is least -q,
    or -(1 - q).
    """
    has_gap = total > extra
    kept_small = gain / np.where(has_gap, total + extra, 1.0)
    sent_up = (gain - extra) / np.where(has_gap, total - extra, 1.0)
    return np.where(has_gap, np.minimum(kept_small, sent_up), -np.inf)


def _framed(lows: Floats, highs: Floats) -> tuple[Floats, Floats]:
    """The bounds in draws [n_draws, N_SHARES]; all large is 1 by definition."""
    lower, upper = lower_bound(lows), upper_bound(highs)
    lower[-1] = upper[-1] = 1.0
    return lower, upper


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of one draw: gain [N_SHARES] over the small model at each cut and in all, the small model's score, the cost
    [N_SHARES] in USD and that of all large.
    """

    gain: Floats
    total: float
    small: float
    spent: Floats
    all_large: float

    @property
    def cost(self) -> Floats:
        """As a part of that of all large [N_SHARES]."""
        part: Floats = self.spent / max(self.all_large, 1e-300)
        return part


@dataclass(frozen=True, slots=True)
class _Extreme:
    """A row whose cost is imagined, USD: what it is paid, and what the large model alone would have cost for it."""

    spent: float
    large: float


class _Rows:
    """Ranked rows, binned by the first cut that holds them, so that a draw is a few weighted counts.

    firsts int [n]: the cut from which on a row goes to the large model at first. From its bin up to there it is
    answered twice.
    """

    def __init__(
        self,
        labels: Floats,
        costs: RowCosts | None,
        order: NDArray[np.intp],
        cuts: NDArray[np.intp],
        firsts: NDArray[np.intp],
    ) -> None:
        self._bins, self._firsts = np.searchsorted(cuts, np.arange(len(labels)), side="right"), firsts
        self._n_cuts = len(cuts)
        self._small, self._gain = labels[:, 0], labels[:, 1] - labels[:, 0]
        if costs is None:
            self._extra, self._base, self._all = np.ones(len(labels)), np.zeros(len(labels)), np.ones(len(labels))
        else:
            self._extra, self._base, self._all = costs.extra[order], costs.small[order], costs.large[order]
        self._twice = np.flatnonzero(self._bins < firsts)

    @property
    def most(self) -> _Extreme:
        """The row that can cost most, at the most that it can: at once on the large model, or answered twice."""
        paid = self._base + self._extra
        if self._twice.size:
            paid = np.maximum(paid, self._base + self._all)
        at = int(paid.argmax())
        return _Extreme(float(paid[at]), float(self._all[at]))

    @property
    def least(self) -> _Extreme:
        """The row on which the small model saves most, on the small model."""
        at = int((self._all - self._base).argmax())
        return _Extreme(float(self._base[at]), float(self._all[at]))

    def sums(self, weights: Floats) -> _Sums:
        """Sums over rows that count `weights` [n] times."""
        gain = self._up_to_cuts(weights * self._gain, self._bins)
        spent = float(weights @ self._base) + self._up_to_cuts(weights * self._extra, self._firsts)
        if self._twice.size:
            second = weights[self._twice] * self._all[self._twice]
            spent += self._up_to_cuts(second, self._bins[self._twice])
            spent -= self._up_to_cuts(second, self._firsts[self._twice])
        return _Sums(gain, float(gain[-1]), float(weights @ self._small), spent, float(weights @ self._all))

    def _up_to_cuts(self, values: Floats, bins: NDArray[np.intp]) -> Floats:
        summed: Floats = np.cumsum(np.bincount(bins, values, minlength=self._n_cuts))
        return summed


def _run(holds: NDArray[np.bool_]) -> int:
    """For how many of the first points `holds` without a gap."""
    fails = np.flatnonzero(~holds)
    return int(fails[0]) if fails.size else len(holds)
