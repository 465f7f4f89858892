"""A share of right answers, and how far it may be off."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `count`, with Wilson's 95 % interval (E. B. Wilson, 1927); share, low and high are shares of 1."""

    right: int
    count: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> "Share":
        """The share of True; of no outcomes it is 0, and could be anything."""
        n, k, z = len(outcomes), sum(outcomes), 1.959964
        if n == 0:
            return cls(0, 0, 0.0, 0.0, 1.0)
        p = k / n
        centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return cls(k, n, p, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))

    def __str__(self) -> str:
        return f"{100 * self.share:5.1f} % of {self.count:3} [{100 * self.low:.0f}, {100 * self.high:.0f}]"
