"""Calibration maps: from a head's logit to a probability that means what it says."""

import enum
from dataclasses import dataclass

import numpy as np

from router_model.logistic import Floats, fit_logistic, sigmoid

ISOTONIC_LABELS = 1_000
"""Above this many labels isotonic regression is used, else Platt's two parameters."""


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

    def apply(self, logits: Floats) -> Floats:
        """Logits to probabilities, of any shape."""
        if self.method is Method.PLATT:
            return sigmoid(self.y[0] + self.y[1] * logits)
        return np.interp(logits, self.x, self.y)


def fit_calibration(logits: Floats, targets: Floats) -> CalibrationMap:
    """Fit to out-of-fold logits [n] and targets [n] in [0, 1]; isotonic above ISOTONIC_LABELS of them, else Platt."""
    return fit_isotonic(logits, targets) if len(logits) > ISOTONIC_LABELS else fit_platt(logits, targets)


def fit_platt(logits: Floats, targets: Floats) -> CalibrationMap:
    """Platt scaling (1999) with a weak prior towards slope 1; a negative slope, which would reverse the ranking,
    becomes 0.

    Fitting `targets` on a scaled logit by ridge logistic regression; the prior is worth about one observation.
    """
    scale = max(float(logits.std()), 1e-9)
    slope, intercept = fit_logistic((logits / scale)[:, None], targets, 1.0)
    if slope < 0:
        slope, intercept = 0.0, float(_logit(np.array([targets.mean()]))[0])
    return CalibrationMap(Method.PLATT, np.zeros(0), np.array([intercept, slope / scale]))


def fit_isotonic(logits: Floats, targets: Floats) -> CalibrationMap:
    """Isotonic regression: the best non-decreasing fit in squared error, by pooling adjacent violators (Barlow, 1972).

    Equal logits are pooled first. Probabilities are held half an observation away from 0 and 1, since a block of a
    few right answers is no certainty.
    """
    x, inverse, counts = np.unique(logits, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, targets) / counts
    y = pool_adjacent_violators(means, counts.astype(np.float64))
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


def _logit(p: Floats) -> Floats:
    held = np.clip(p, 1e-6, 1 - 1e-6)
    result: Floats = np.log(held / (1 - held))
    return result
