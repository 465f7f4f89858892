"""Regularised logistic regression by Newton's method, for targets between 0 and 1."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MAX_STEPS = 50
_TOLERANCE = 1e-8


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    z = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1 / (1 + z), z / (1 + z))
    return result


def sigmoid_one(x: float) -> float:
    """`sigmoid` of one number: plain floats, which a decision has few of, take a tenth of an array's time."""
    z = math.exp(-abs(x))
    return 1 / (1 + z) if x >= 0 else z / (1 + z)


def log_loss(logits: Floats, targets: Floats) -> float:
    """Mean cross entropy (nats) of targets in [0, 1] under sigmoid(logits); NaN targets are left out."""
    return float(np.nanmean(np.logaddexp(0, logits) - targets * logits))


def with_ones(x: Floats) -> Floats:
    """[n, d] to [n, d + 1]: a last column of ones for the intercept."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def fit_logistic(
    x: Floats, targets: Floats, l2: float, start: Floats | None = None, counts: Floats | None = None
) -> Floats:
    """Weights [d + 1], the intercept last, that minimise sum of cross entropies + l2 / 2 * |weights without
    intercept|^2.

    x [n, d]; targets [n] in [0, 1]; l2 > 0, which makes the minimum finite and single; counts [n]: how often each row
    counts, once where None. Newton steps, halved until the loss falls (Boyd and Vandenberghe, Convex Optimization,
    9.5); `start` warms the search up and does not change its end.
    """
    design = with_ones(x)
    counts = np.ones(len(x)) if counts is None else counts
    # A trace of a penalty on the intercept keeps the minimum finite where all targets are equal.
    penalty = np.full(design.shape[1], l2)
    penalty[-1] = 1e-3
    weights = np.zeros(design.shape[1]) if start is None else start.copy()
    loss = _objective(design, targets, counts, penalty, weights)
    for _ in range(_MAX_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (counts * (p - targets)) + penalty * weights
        hessian = (design * (counts * p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (new := _objective(design, targets, counts, penalty, weights - size * step)) > loss and size > 1e-6:
            size /= 2
        if new > loss:
            break
        weights -= size * step
        done = loss - new <= _TOLERANCE * (1 + abs(loss))
        loss = new
        if done:
            break
    return weights


def _objective(design: Floats, targets: Floats, counts: Floats, penalty: Floats, weights: Floats) -> float:
    logits = design @ weights
    entropies = np.logaddexp(0, logits) - targets * logits
    return float(counts @ entropies + 0.5 * np.sum(penalty * np.square(weights)))
