"""Calibration maps: from a head's logit to a probability that means what it says."""

import enum
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from router_model.logistic import Floats, sigmoid, sigmoid_one

ISOTONIC_LABELS = 1_000
"""Above this many labels isotonic regression is used, else Platt's two parameters."""


MIN_ROUTE_LABELS = 30
"""A kind of traffic with fewer labels than this gets no map of its own."""

SHRINKAGE = 50.0
"""Labels at which a route's own map counts as much as everyone's.

Of 0, 25, 50, … 1,600 the held-out log loss was least at 0 to 50 for each model of two public pairs, with question
families of about 140 or 350 labels as routes (0.558 without route maps, 0.546 with, on the first); 50 is the most
careful of those, for routes that have fewer labels.
"""


class Method(enum.StrEnum):
    """How a map was fitted."""

    ISOTONIC = "isotonic"
    PLATT = "platt"


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationMap:
    """A map that never decreases.

    isotonic: `x` and `y` float64 are knots, linear between them and constant beyond. platt: y[0] + y[1] * logit goes
    through the logistic function, and `x` is empty.
    """

    method: Method
    x: Floats
    y: Floats
    _x: list[float] = field(init=False, repr=False)
    _y: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the knots as plain floats, too, for `apply_one`."""
        object.__setattr__(self, "_x", self.x.tolist())
        object.__setattr__(self, "_y", self.y.tolist())

    def apply(self, logits: Floats) -> Floats:
        """Logits to probabilities, of any shape."""
        if self.method is Method.PLATT:
            return sigmoid(self.y[0] + self.y[1] * logits)
        return np.interp(logits, self.x, self.y)

    def apply_one(self, logit: float) -> float:
        """`apply` to one finite logit."""
        x, y = self._x, self._y
        if self.method is Method.PLATT:
            return sigmoid_one(y[0] + y[1] * logit)
        above = bisect_right(x, logit)
        if above in (0, len(x)):
            return y[0] if above == 0 else y[-1]
        slope = (y[above] - y[above - 1]) / (x[above] - x[above - 1])
        return slope * (logit - x[above - 1]) + y[above - 1]


IDENTITY = CalibrationMap(Method.PLATT, np.zeros(0), np.array([0.0, 1.0]))
"""The map that takes a logit for what it says."""


@dataclass(frozen=True, slots=True, eq=False)
class RouteMaps:
    """One map for all traffic, and one for each kind of traffic (route) that had enough labels.

    by_route holds the route's map and how much it counts, 0 to 1: the logit of the result is
    weight * logit(route's map) + (1 - weight) * logit(everyone's map).
    """

    everyone: CalibrationMap
    by_route: Mapping[str, tuple[CalibrationMap, float]] = field(default_factory=dict)

    def apply(self, logits: Floats, routes: Sequence[str] = ()) -> Floats:
        """Logits [n] to probabilities [n]. routes [n]: each row's; a route without a map, or none given, gets
        everyone's.

        ValueError: as many routes as rows, or none, are needed.
        """
        p = np.array(self.everyone.apply(logits), np.float64)
        if not routes or not self.by_route:
            return p
        if len(routes) != len(logits):
            raise ValueError(f"{len(routes)} routes were given for {len(logits)} rows: give one for each row, or none")
        for route in sorted(set(routes) & set(self.by_route)):
            rows = np.flatnonzero([one == route for one in routes])
            own, weight = self.by_route[route]
            p[rows] = sigmoid(weight * logit(own.apply(logits[rows])) + (1 - weight) * logit(p[rows]))
        return p

    def apply_one(self, logit: float, route: str = "") -> float:
        """`apply` to one finite logit; route "" is none."""
        p = self.everyone.apply_one(logit)
        if route not in self.by_route:
            return p
        own, weight = self.by_route[route]
        return sigmoid_one(weight * logit_one(own.apply_one(logit)) + (1 - weight) * logit_one(p))


def fit_route_maps(
    logits: Floats,
    targets: Floats,
    routes: Sequence[str] = (),
    weights: Floats | None = None,
    *,
    everyone: CalibrationMap | None = None,
) -> RouteMaps:
    """Fit everyone's map to all rows, and to each route with MIN_ROUTE_LABELS rows a map shrunk towards everyone's.

    logits, targets and weights [n] as for `fit_calibration`; routes [n] or empty; "" is no route. everyone: that map,
    where it was fitted before. The shrinkage weight is n / (n + SHRINKAGE) of the route's n labels: the posterior mean
    of an estimate whose variance falls as 1 / n under a normal prior around everyone's map, SHRINKAGE being the ratio
    of the two variances.
    """
    everyone = everyone or fit_calibration(logits, targets, weights)
    known = np.isfinite(targets)
    names = np.array(routes, np.str_)
    by_route: dict[str, tuple[CalibrationMap, float]] = {}
    for route in sorted(set(routes) - {""}):
        rows = np.flatnonzero(known & (names == route))
        if len(rows) >= MIN_ROUTE_LABELS:
            own = fit_calibration(logits[rows], targets[rows], None if weights is None else weights[rows])
            by_route[route] = own, len(rows) / (len(rows) + SHRINKAGE)
    return RouteMaps(everyone, by_route)


def fit_calibration(logits: Floats, targets: Floats, weights: Floats | None = None) -> CalibrationMap:
    """Fit to out-of-fold logits [n] and targets [n] in [0, 1]; isotonic above ISOTONIC_LABELS of them, else Platt.

    Rows whose target is NaN are left out. weights [n] count rows more or less; None is all alike. ValueError: no row
    has a target.
    """
    known = np.isfinite(targets) if weights is None else np.isfinite(targets) & (weights > 0)
    if not known.any():
        raise ValueError("no row has a label to calibrate with: grade some answers of this model")
    logits, targets = logits[known], targets[known]
    weights = None if weights is None else weights[known]
    fit = fit_isotonic if len(logits) > ISOTONIC_LABELS else fit_platt
    return fit(logits, targets, weights)


def correction(logits: Floats, targets: Floats, weights: Floats | None = None) -> CalibrationMap:
    """A map for probabilities that were calibrated once, fitted to new labels: few labels leave them as they are.

    Isotonic above ISOTONIC_LABELS labels; below, Platt's line under a prior around the identity that SHRINKAGE labels
    outweigh; without any label, the identity. Arguments as for `fit_calibration`.
    """
    known = np.isfinite(targets) if weights is None else np.isfinite(targets) & (weights > 0)
    if known.sum() > ISOTONIC_LABELS:
        return fit_calibration(logits, targets, weights)
    if not known.any():
        return IDENTITY
    x, y = logits[known], targets[known]
    w = np.ones(len(x)) if weights is None else weights[known] / weights[known].mean()
    p = sigmoid(x)
    # A label tells as much about the line as its variance p (1 - p): the prior is worth SHRINKAGE labels.
    information = SHRINKAGE * np.average(p * (1 - p), weights=w) * np.array([np.average(np.square(x), weights=w), 1.0])
    slope, intercept = _fit_line(
        np.stack([x, np.ones(len(x))], axis=1), y, w, np.maximum(information, 1e-3), np.array([1.0, 0.0])
    )
    return CalibrationMap(Method.PLATT, np.zeros(0), np.array([intercept, max(slope, 0.0)]))


def fit_platt(logits: Floats, targets: Floats, weights: Floats | None = None) -> CalibrationMap:
    """Platt scaling (1999) with a weak prior towards slope 0; a negative slope, which would reverse the ranking,
    becomes 0.

    Maximum likelihood of `targets` given a scaled logit; the prior is worth about one observation.
    """
    w = np.ones(len(logits)) if weights is None else weights / weights.mean()
    scale = max(float(logits.std()), 1e-9)
    design = np.stack([logits / scale, np.ones(len(logits))], axis=1)
    # A trace of a penalty on the intercept keeps it finite where all targets are equal.
    slope, intercept = _fit_line(design, targets, w, np.array([1.0, 1e-3]), np.zeros(2))
    if slope < 0:
        slope, intercept = 0.0, float(logit(np.array([np.average(targets, weights=w)]))[0])
    return CalibrationMap(Method.PLATT, np.zeros(0), np.array([intercept, slope / scale]))


def fit_isotonic(logits: Floats, targets: Floats, weights: Floats | None = None) -> CalibrationMap:
    """Isotonic regression: the best non-decreasing fit in squared error, by pooling adjacent violators (Barlow, 1972).

    Equal logits are pooled first. Probabilities are held half an observation away from 0 and 1, since a block of a
    few right answers is no certainty.
    """
    w = np.ones(len(logits)) if weights is None else weights
    x, inverse = np.unique(logits, return_inverse=True)
    masses = np.bincount(inverse, w).astype(np.float64)
    y = pool_adjacent_violators(np.bincount(inverse, w * targets) / masses, masses)
    margin = 0.5 / len(logits)
    # Only a block's ends are knots: those between lie on the line.
    is_knot = np.ones(len(x), bool)
    is_knot[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return CalibrationMap(Method.ISOTONIC, x[is_knot], np.clip(y[is_knot], margin, 1 - margin))


def pool_adjacent_violators(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing sequence nearest to `values` in weighted squared error, in linear time."""
    means: list[float] = []
    totals: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        totals.append(weight)
        lengths.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            mean, total, length = means.pop(), totals.pop(), lengths.pop()
            joined = totals[-1] + total
            means[-1] = (means[-1] * totals[-1] + mean * total) / joined
            totals[-1] = joined
            lengths[-1] += length
    return np.repeat(means, lengths)


def _fit_line(design: Floats, targets: Floats, weights: Floats, penalty: Floats, prior: Floats) -> Floats:
    """[slope, intercept] of a weighted logistic regression on design [n, 2], by Newton's method with halved steps.

    The penalty [2] draws them to the prior [2].
    """

    def loss(at: Floats) -> float:
        logits = design @ at
        fit = weights @ (np.logaddexp(0, logits) - targets * logits)
        return float(fit + 0.5 * penalty @ np.square(at - prior))

    line = prior.copy()
    before = loss(line)
    for _ in range(50):
        p = sigmoid(design @ line)
        gradient = design.T @ (weights * (p - targets)) + penalty * (line - prior)
        hessian = (design * (weights * p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        while (after := loss(line - step)) > before and np.abs(step).max() > 1e-9:
            step /= 2
        if after > before:
            break
        line = line - step
        if before - after <= 1e-10 * (1 + abs(before)):
            break
        before = after
    return line


def logit(p: Floats) -> Floats:
    """log(p / (1 - p)) of probabilities, which are held a millionth away from 0 and 1."""
    held = np.clip(p, 1e-6, 1 - 1e-6)
    result: Floats = np.log(held / (1 - held))
    return result


def logit_one(p: float) -> float:
    """`logit` of one probability."""
    held = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(held / (1 - held))
