"""Labels: what is known of how both models did on the training prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats
from router_model.outcomes import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Of n prompts: scores float64 [n, 2] (small, large), tokens [n, 2], NaN for not known; weights [n] of the rows."""

    scores: Floats
    tokens: Floats
    weights: Floats

    @property
    def is_pair(self) -> NDArray[np.bool_]:
        """Rows on which both models were graded, [n]."""
        known: NDArray[np.bool_] = np.asarray(np.isfinite(self.scores).all(axis=1))
        return known

    @property
    def gains(self) -> Floats:
        """Large less small [n], NaN where one is not known."""
        gains: Floats = self.scores[:, 1] - self.scores[:, 0]
        return gains

    def mean(self, side: int) -> float:
        """Weighted mean score of small (0) or large (1) where it is known; 0.5 where it never is."""
        known = np.isfinite(self.scores[:, side]) & (self.weights > 0)
        return float(np.average(self.scores[known, side], weights=self.weights[known])) if known.any() else 0.5

    def take(self, rows: NDArray[np.intp]) -> "Labels":
        """Those of some rows."""
        return Labels(self.scores[rows], self.tokens[rows], self.weights[rows])


def labels_of(outcomes: Sequence[Outcome]) -> Labels:
    """The outcomes' scores, token counts and weights as arrays, small before large."""
    scores = np.array([(one.weak_score, one.strong_score) for one in outcomes], np.float64).reshape(-1, 2)
    tokens = [(one.small_tokens, one.large_tokens) for one in outcomes]
    counted = np.array([[np.nan if n is None else n for n in pair] for pair in tokens], np.float64).reshape(-1, 2)
    return Labels(scores, counted, np.array([one.weight for one in outcomes], np.float64))
