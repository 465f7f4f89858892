"""The heads on an encoded request: p_small, p_large, expected output tokens, and the distance to what training saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats, fit_logistic, with_ones

NEAR = 4.0
"""The heads look no further than this many deviations: beyond, a linear head would extrapolate."""

OOD_COMPONENTS = 32
"""Principal components of the encoding in which the distance is measured."""

MIN_TOKEN_LABELS = 50
"""Fewer rows with token counts train no token head."""


@dataclass(frozen=True, slots=True)
class HeadOutputs:
    """Raw outputs for n requests, each float64 [n]: logits of a right answer, distance, expected tokens."""

    logit_small: Floats
    logit_large: Floats
    distance: Floats
    small_tokens: Floats | None
    large_tokens: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Linear heads on an encoding of d numbers.

    right float64 [2, d + 1]: small, large; intercept last. centre [d] and whitening [d, k] of the Mahalanobis distance.
    tokens [2, d + 2] or None: ridge weights on log(1 + tokens), intercept, and the factor that undoes the bias of the
    logarithm (Duan's smearing estimate, 1983).
    """

    right: Floats
    centre: Floats
    whitening: Floats
    tokens: Floats | None = None

    def outputs(self, encoded: Floats) -> HeadOutputs:
        """encoded float64 [n, d] to HeadOutputs. The distance is per component: about 1 for what training saw."""
        design = with_ones(np.clip(encoded, -NEAR, NEAR))
        logits = design @ self.right.T
        whitened = (encoded - self.centre) @ self.whitening
        distance: Floats = np.sqrt(np.square(whitened).mean(axis=1))
        small = large = None
        if self.tokens is not None:
            # 2^20 tokens are more than any window: a cap for exp() far from the data.
            logs = np.clip(design @ self.tokens[:, :-1].T, 0.0, 14.0)
            expected = np.maximum(np.exp(logs) * self.tokens[:, -1] - 1, 0.0)
            small, large = expected[:, 0], expected[:, 1]
        return HeadOutputs(logits[:, 0], logits[:, 1], distance, small, large)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Outcomes of n prompts: scores float64 [n, 2] (small, large) and tokens [n, 2], NaN for not recorded."""

    scores: Floats
    tokens: Floats

    def take(self, rows: NDArray[np.intp]) -> "Labels":
        """Those of some rows."""
        return Labels(self.scores[rows], self.tokens[rows])


def fit_heads(encoded: Floats, labels: Labels, l2: float, start: Floats | None = None) -> Heads:
    """Fit all heads to encoded float64 [n, d]. l2: penalty of fit_logistic; start: `right` of a fit to similar data."""
    near = np.clip(encoded, -NEAR, NEAR)
    right = np.stack(
        [fit_logistic(near, labels.scores[:, m], l2, None if start is None else start[m]) for m in range(2)]
    )
    centre, whitening = _fit_whitening(encoded)
    return Heads(right, centre, whitening, _fit_tokens(near, labels.tokens, l2))


def _fit_whitening(encoded: Floats) -> tuple[Floats, Floats]:
    """Centre [d] and whitening [d, k] of the leading principal components.

    Variances get a floor of a thousandth of the largest, so that a direction that training never moved in does not
    make a slight difference look infinitely far.
    """
    centre = encoded.mean(axis=0)
    centred = encoded - centre
    variances, directions = np.linalg.eigh(centred.T @ centred / max(len(encoded) - 1, 1))
    variances, directions = variances[::-1][:OOD_COMPONENTS], directions[:, ::-1][:, :OOD_COMPONENTS]
    floor = max(1e-3 * float(variances[0]), 1e-9)
    return centre, directions / np.sqrt(np.maximum(variances, floor))


def _fit_tokens(near: Floats, tokens: Floats, l2: float) -> Floats | None:
    known = np.isfinite(tokens).all(axis=1)
    if known.sum() < MIN_TOKEN_LABELS:
        return None
    design, logs = with_ones(near[known]), np.log1p(tokens[known])
    penalty = np.diag(np.append(np.full(near.shape[1], l2), 0.0))
    weights = np.linalg.solve(design.T @ design + penalty, design.T @ logs)  # [d + 1, 2]
    smearing = np.exp(logs - design @ weights).mean(axis=0)
    return np.concatenate([weights, smearing[None]]).T
