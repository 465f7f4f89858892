"""When a request's token masks are too slow to go on: the step loop fills them, so everybody waits for them."""

__all__ = ["MaskBudget"]

_STRIKES = 3
_HOPELESS = 10.0


class MaskBudget:
    """Counts the slow masks of one request, by CPU time: waiting for a core is not the grammar's fault."""

    def __init__(self, slow_s: float) -> None:
        """slow_s: CPU time of a mask that is slow."""
        self.slow_s = slow_s
        self.n_slow = 0

    def is_spent(self, cpu_s: float, n_masks: int = 1) -> bool:
        """Whether it is enough after another `n_masks` masks: with the third slow one, or one that took ten times as
        long. cpu_s: of all of them; each is taken to have had its share."""
        mean_s = cpu_s / n_masks
        if mean_s < self.slow_s:
            return False
        self.n_slow += n_masks
        return self.n_slow >= _STRIKES or mean_s >= _HOPELESS * self.slow_s
