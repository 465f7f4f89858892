"""Seconds as a sum of non-negative terms, by weighted least squares over measurements that come one at a time."""

from collections.abc import Sequence

__all__ = ["TimeFit"]

SWEEPS = 2
"""Rounds of descent after a measurement; the next one goes on from there."""
EVERY = 8
"""Measurements between descents: one takes 30 microseconds, which every step of a small model would feel."""
CONVERGED = 2000
"""Rounds of descent where the answer must be exact."""


class TimeFit:
    """seconds = sum of coefficient * feature, no coefficient below zero: no work has ever made a step shorter.

    Every measurement counts by its relative error (that of a 4 ms step matters as much as that of a 4 s prefill), and
    fades with each newer one. What `anchor` was given never fades, so that a long run of one kind of step does not
    forget what the other kinds cost; it only says their proportions, since all of it is scaled by how much longer than
    it says steps take of late (others use the machine too). Solved by cyclic coordinate descent on the normal equations
    (Franc, Hlavac, Navara, 2005, "Sequential coordinate-wise algorithm for the non-negative least squares problem").

    n: features of a measurement; they should be of comparable size. half_life: measurements until one counts half.
    """

    def __init__(self, n: int, half_life: float) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._fixed, self._recent = _Sums(n), _Sums(n)
        self._anchored = [0.0] * n
        self._fresh = EVERY - 1  # measurements since the last descent; the very first one counts at once
        self._level = (1.0, 1.0)  # weighted sum of (measured / anchored), and the sum of the weights
        self.coefficients = [0.0] * n

    def anchor(self, measured: Sequence[tuple[Sequence[float], float]], weight: float) -> None:
        """Start over from these (features, seconds), which together count as much as `weight` recent measurements."""
        n = len(self.coefficients)
        self._fixed, self._recent = _Sums(n), _Sums(n)
        for features, seconds in measured:
            self._fixed.add(features, seconds, weight / len(measured))
        self._level = (1.0, 1.0)
        self._descend(CONVERGED)
        self._anchored = list(self.coefficients)

    def observe(self, features: Sequence[float], seconds: float) -> None:
        """Take in one measurement; one without a duration says nothing."""
        if seconds > 0.0:
            self._recent.fade(self._decay)
            self._recent.add(features, seconds, 1.0)
            expected, (total, weight) = _dot(self._anchored, features), self._level
            if expected > 0.0:
                self._level = (total * self._decay + seconds / expected, weight * self._decay + 1.0)
            self._fresh += 1
            if self._fresh >= EVERY:
                self._fresh = 0
                self._descend(SWEEPS)

    def predict(self, features: Sequence[float]) -> float:
        """Seconds; never negative."""
        return _dot(self.coefficients, features)

    def _descend(self, sweeps: int) -> None:
        """Minimise c A c / 2 - b c over c >= 0, one coefficient at a time."""
        coefficients, fixed, recent = self.coefficients, self._fixed, self._recent
        level = self._level[0] / self._level[1]
        rows = [
            [f / level**2 + r for f, r in zip(fixed_row, recent_row, strict=True)]
            for fixed_row, recent_row in zip(fixed.xx, recent.xx, strict=True)
        ]
        target = [f / level + r for f, r in zip(fixed.xy, recent.xy, strict=True)]
        for _ in range(sweeps):
            moved = 0.0
            for i, row in enumerate(rows):
                if row[i] > 0.0:
                    rest = _dot(row, coefficients) - row[i] * coefficients[i]
                    new = max(0.0, (target[i] - rest) / row[i])
                    moved = max(moved, abs(new - coefficients[i]) * row[i] ** 0.5)
                    coefficients[i] = new
            if moved < 1e-9:
                return


class _Sums:
    """Weighted sums of x x' and x y, where y is 1 after division of each measurement by its seconds."""

    def __init__(self, n: int) -> None:
        self.xx = [[0.0] * n for _ in range(n)]
        self.xy = [0.0] * n

    def fade(self, by: float) -> None:
        self.xx = [[value * by for value in row] for row in self.xx]
        self.xy = [value * by for value in self.xy]

    def add(self, features: Sequence[float], seconds: float, weight: float) -> None:
        scaled = [feature / seconds for feature in features]
        for i, x in enumerate(scaled):
            self.xy[i] += weight * x
            row = self.xx[i]
            for j, y in enumerate(scaled):
                row[j] += weight * x * y


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
