"""Whether the router's probabilities mean what they say, from graded answers."""

from collections.abc import Sequence

import msgspec
import numpy as np

from gateway.reports.facts import Facts
from router_model.logistic import Floats
from router_model.metrics import brier, ece, ece_debiased
from router_model.options import Action

_BINS = 10


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Answers with similar predictions: their mean prediction, their mean score with its standard error."""

    n: int
    predicted: float
    observed: float
    error: float


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model's own graded answers. bins: of equal size, at most 10. None where too few were graded.

    Each model is graded mostly on requests that were sent to it, so this is about those.
    """

    model: str
    n: int
    bins: list[Bin]
    ece: float | None
    ece_debiased: float | None
    brier: float | None


def reliability(facts: Sequence[Facts]) -> list[Reliability]:
    """Small, then large."""
    return [_reliability(action, facts) for action in Action]


def _reliability(action: Action, facts: Sequence[Facts]) -> Reliability:
    rows = [
        (predicted, score)
        for one in facts
        if (predicted := one.p_large if action is Action.LARGE else one.p_small) is not None
        and (score := _score(one, action)) is not None
    ]
    n = len(rows)
    if n < _BINS:
        return Reliability(model=action.value, n=n, bins=[], ece=None, ece_debiased=None, brier=None)
    p, scores = np.array(rows, np.float64).T
    return Reliability(
        model=action.value,
        n=n,
        bins=_bins(p, scores),
        ece=ece(p, scores),
        ece_debiased=ece_debiased(p, scores),
        brier=brier(p, scores),
    )


def _score(one: Facts, action: Action) -> float | None:
    known = one.grades.get(action)
    if known is not None and known.score is not None:
        return known.score
    return one.grade if one.model_served == action else None


def _bins(p: Floats, scores: Floats) -> list[Bin]:
    order = np.argsort(p, kind="stable")
    return [
        Bin(
            n=len(part),
            predicted=float(p[part].mean()),
            observed=float(scores[part].mean()),
            error=float(scores[part].std() / np.sqrt(len(part))),
        )
        for part in np.array_split(order, min(_BINS, len(p) // 5))
    ]
