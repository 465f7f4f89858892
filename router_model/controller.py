"""Keeps a wanted large share, or spend, on traffic that is unlike what the threshold was computed from.

A fixed threshold drifts: one that sent half of its training data to the large model may send 4 % of other questions.
"""

import numpy as np

from router_model.logistic import Floats
from router_model.thresholds import ALWAYS_LARGE, NEVER_LARGE

GAIN = 0.04
"""How far one request too many on the large model lowers the share that is aimed at."""

SLACK = 0.5
"""How far the aim may leave [0, 1]."""

WINDOW = 256
"""Recent ranks that the threshold is a quantile of."""

N_PRIOR = 32
"""Quantiles of the training ranks that stand in for traffic at first; each request replaces one."""


class ShareController:
    """Integral control of one wanted share.

    The threshold is the quantile of the recent ranks that leaves the share `aim` above it, and

        aim = first share - GAIN * (sum of what was spent beyond what was wanted, in requests),

    where the first share is what the large model is expected to answer at first, so that with the second answers that
    are owed (`owe`) it comes to the wanted share. Without second chances both are one. `aim` is held within SLACK of
    [0, 1]. The quantile follows any shift and scale of the ranks. The integral takes out what is
    left: a sum that is bounded by some requests is a vanishing part of many. Beyond the slack the sum is cut off
    (anti-windup), so a debt that cannot be paid now is forgotten, not collected later. Without slack, equal ranks,
    which no threshold parts, would alternate between all and none and lose count.
    """

    def __init__(self, share: float, base: float, ranks: Floats) -> None:
        """share: that the large model should answer at first, 0 to 1. base: its threshold on training data, which
        `offset` is measured from.

        ranks [n]: of the training data.
        """
        self._share, self._base = share, base
        self._recent = np.quantile(ranks, (np.arange(N_PRIOR) + 0.5) / N_PRIOR)
        self._oldest, self._overspent = 0, 0.0

    @property
    def aim(self) -> float:
        """The share aimed at now."""
        return self._share - GAIN * self._overspent

    @property
    def overspent(self) -> float:
        """Requests on the large model beyond what was wanted; negative is below."""
        return self._overspent

    @property
    def offset(self) -> float:
        """The threshold now, less that on training data."""
        return self.threshold() - self._base

    def threshold(self, pressure: float = 0.0) -> float:
        """The threshold in force. pressure: 0 to 1, takes that part off the share."""
        n = len(self._recent)
        above = round(self.aim * (1 - pressure) * n)
        if above <= 0:
            return NEVER_LARGE
        if above >= n:
            return ALWAYS_LARGE
        # Halfway between the last rank above and the first below: neither of them decides by a rounding.
        pair = np.partition(self._recent, [n - above - 1, n - above])[n - above - 1 : n - above + 1]
        return float(pair.mean())

    def observe(self, rank: float, overspent: float) -> None:
        """Note one decided request: its rank, and what it spent beyond the wanted, in requests on the large model.

        For a wanted share that is 1 - share if it went to the large model, else -share.
        """
        if len(self._recent) < WINDOW and self._oldest >= N_PRIOR:
            self._recent = np.append(self._recent, rank)
        else:
            self._recent[self._oldest % len(self._recent)] = rank
        self._oldest += 1
        self.owe(overspent)

    def owe(self, overspent: float) -> None:
        """Note spending alone: a second answer to a request that was observed before, or one that left no choice."""
        least, most = (self._share - 1 - SLACK) / GAIN, (self._share + SLACK) / GAIN
        self._overspent = float(np.clip(self._overspent + overspent, least, most))
