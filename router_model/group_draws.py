"""Bootstrap draws over groups of rows that leave room for what was not seen.

Drawing rows with replacement says nothing of what never happened: 8 rows without a loss have none in any draw, and a
bound from such draws is certain of a rate of 0. Here each group counts by an exponential weight (the Bayesian
bootstrap; Rubin, 1981), and so does one more group that nobody saw, which whoever asks for a bound imagines as bad as
it can be. For rows of equal weight this is Gaffke's bound for the mean of bounded values (2005; Learned-Miller and
Thomas, 2019); of values 0 and 1 it is Clopper's and Pearson's (1934): with x losses of n the loss rate of a draw is
distributed as Beta(x + 1, n - x).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

CONFIDENCE = 0.95
"""One-sided confidence of a bound."""


class GroupDraws:
    """Draws for n rows in groups.

    rows float64 [n]: what each row counts, 1 on average. unseen: what the unseen group counts: as much as the group of
    a row drawn by weight, which is the total over the effective number of groups (Kish, 1965). n_effective: that
    number.
    """

    def __init__(self, groups: NDArray[np.intp], weights: Floats | None = None) -> None:
        """groups int [n]: numbers from 0. weights [n]: importance weights, of which only ratios count; None is all
        equal. ValueError: a weight below 0 or not finite, or no row counts.
        """
        n = len(groups)
        weights = np.ones(n) if weights is None else weights
        total = float(weights.sum())
        if not (weights >= 0).all() or not 0 < total < np.inf:
            raise ValueError("weights of rows must be finite numbers from 0, of which one at least is above it")
        self.rows: Floats = weights * (n / total)
        self._groups = groups
        sizes = np.bincount(groups, self.rows)
        self._n_groups = len(sizes)
        self.unseen = float(np.square(sizes).sum() / sizes.sum())
        self.n_effective = float(sizes.sum()) / self.unseen

    def draw(self, rng: np.random.Generator, n_draws: int) -> Iterator[tuple[Floats, float]]:
        """For each draw what every row counts [n], and what the unseen group does."""
        for _ in range(n_draws):
            drawn = rng.standard_exponential(self._n_groups + 1)
            yield self.rows * drawn[:-1][self._groups], self.unseen * float(drawn[-1])


def lower_bound(draws: Floats) -> Floats:
    """The lower CONFIDENCE bound in draws [n_draws] or [n_draws, k], one for each column."""
    at = _order(len(draws))
    bound: Floats = np.partition(draws, at, axis=0)[at]
    return bound


def upper_bound(draws: Floats) -> Floats:
    """The upper CONFIDENCE bound, see `lower_bound`."""
    at = len(draws) - 1 - _order(len(draws))
    bound: Floats = np.partition(draws, at, axis=0)[at]
    return bound


def _order(n_draws: int) -> int:
    """Which of the draws in order, from 0, is the lower bound: one more draw falls below it with 1 - CONFIDENCE."""
    return max(int((1 - CONFIDENCE) * (n_draws + 1) + 1e-9), 1) - 1
