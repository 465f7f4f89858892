"""The cost-quality curve of the router's ranking, with the points that a router has to be compared with."""

import msgspec
import numpy as np

from gateway.reports.knowledge import Knowledge, PairKnowledge
from router_model.logistic import Floats
from router_model.off_policy import Estimate, Unidentifiable
from router_model.policy_value import Valued

SHARES = tuple(i / 10 for i in range(11))


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A policy: its large share, cost per request in USD, and mean score with its 95 % interval."""

    large_share: float
    cost_usd: float
    quality: float
    lower: float
    upper: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """source: `shadow_pairs` or `exploration`, None where nothing can be said; note then says why.

    n: requests that it comes from. points: the router's ranking at large shares of 0, 10, … 100 %, as far as known.
    random: at the share of `current`, which is the router as it was. oracle: each request to the cheapest of its best
    models, known from pairs only.
    """

    source: str | None = None
    n: int = 0
    points: list[Point] = []
    all_small: Point | None = None
    all_large: Point | None = None
    random: Point | None = None
    current: Point | None = None
    oracle: Point | None = None
    note: str = ""


def curve_of(known: Knowledge | Unidentifiable) -> Curve:
    """The curve that is known."""
    if isinstance(known, Unidentifiable):
        return Curve(note=str(known))
    log = known.log
    share = float(np.average(log.went_large, weights=1 / log.keep_prob))
    ranked = [_point(known, asked) for asked in _by_share(log.gain)]
    quality, cost = known.current()
    return Curve(
        source=known.source,
        n=known.n,
        points=[point for point in ranked if point is not None],
        all_small=_point(known, np.zeros(known.n)),
        all_large=_point(known, np.ones(known.n)),
        random=_point(known, np.full(known.n, share)),
        current=_made(share, cost, quality),
        oracle=_point(known, _best(known.scores)) if isinstance(known, PairKnowledge) else None,
    )


def _by_share(gain: Floats) -> list[Floats]:
    """P(large) [n] of the router's ranking at each of SHARES; none where rows have no score."""
    if not np.isfinite(gain).all():
        return []
    order = np.argsort(-gain, kind="stable")
    asked = []
    for share in SHARES:
        goes = np.zeros(len(gain))
        goes[order[: round(share * len(gain))]] = 1.0
        asked.append(goes)
    return asked


def _best(scores: Floats) -> Floats:
    best: Floats = (scores[:, 1] > scores[:, 0]).astype(np.float64)
    return best


def _point(known: Knowledge, asked: Floats) -> Point | None:
    try:
        return _made(float(asked.mean()), known.cost(asked), known.quality(asked))
    except Unidentifiable:
        return None


def _made(share: float, cost: Estimate, quality: Estimate) -> Point:
    return Point(
        large_share=share, cost_usd=cost.value, quality=quality.value, lower=quality.lower, upper=quality.upper
    )


def valued(one: Estimate) -> Valued:
    """An estimate without its sample sizes."""
    return Valued(one.value, one.lower, one.upper)
