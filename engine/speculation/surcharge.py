"""How much longer than predicted steps with drafts take."""

from engine.time_fit import TimeFit

__all__ = ["Surcharge"]

HALF_LIFE_STEPS = 300.0
ANCHOR_STEPS = 2.0
"""Steps that are taken for ever to have gone as predicted: so few that a bad surprise is believed at once."""
PLAIN_PRIOR, PLAIN_DECAY = 8.0, 0.5 ** (1 / 128)
"""Of the mean of steps without drafts: those that went as predicted before any is seen, and how fast it forgets."""
CLIP = 3.0
"""A step counts as at most so many times what was predicted of it: others use the machine, too, and one long pause says
nothing about drafts."""


class Surcharge:
    """Compares steps with their prediction, all in units of the same step without drafts:

        measured = a + b [it has drafts] + c added,    where `a + added` would do if everything went as predicted

    Where drafts take longer (kernels that like some sizes less, caches that a second model empties), predictions of
    what they cost are raised: each by `factor`, and that of having any by `entry` steps. They are never lowered, since
    being faster than promised needs no correction to be safe. In steps without drafts this is forgotten by and by, so
    that they are tried again in time.
    """

    def __init__(self) -> None:
        self._fit = TimeFit(3, HALF_LIFE_STEPS)
        as_predicted = [((1.0, float(added > 0.0), added), 1.0 + added) for added in (0.0, 0.1, 0.5, 1.0)]
        self._fit.anchor(as_predicted, ANCHOR_STEPS)
        self._plain, self._n_plain = 0.0, 0.0  # sum of what steps without drafts took, and how many they are; both fade

    def observe(self, plain_s: float, added_s: float, measured_s: float) -> None:
        """Learn from a step that took measured_s. plain_s: predicted for it without drafts; added_s: predicted for its
        drafts, without this surcharge; 0 where it had none."""
        if plain_s <= 0.0:
            return
        added = max(0.0, added_s / plain_s)
        took = min(measured_s / plain_s, CLIP * (1.0 + added))
        if added > 0.0:
            # Where all steps have drafts, nothing else tells what they take apart from what the step would take anyhow.
            plain = (self._plain + PLAIN_PRIOR) / (self._n_plain + PLAIN_PRIOR)
            self._fit.observe((1.0, 0.0, 0.0), plain)
            self._fit.observe((1.0, 1.0, added), took)
        else:
            self._n_plain = self._n_plain * PLAIN_DECAY + 1.0
            self._plain = self._plain * PLAIN_DECAY + took
            self._fit.observe((1.0, 0.0, 0.0), took)

    @property
    def factor(self) -> float:
        """What predictions of each node and round must be multiplied by; 1 or more."""
        plain, _, added = self._fit.coefficients
        return max(1.0, added / plain) if plain > 0.0 else 1.0

    @property
    def entry(self) -> float:
        """What having any drafts takes beside them, as a multiple of the step without; 0 or more."""
        plain, entry, _ = self._fit.coefficients
        return entry / plain if plain > 0.0 else 0.0
