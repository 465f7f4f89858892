"""Whose step comes next when two models share the machine: equal time, unless a deadline presses."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Arbiter", "Claim"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A model that has something to compute. slack_s: seconds until its next deadline, less those that the request is
    predicted to need (None: no deadline).
    """

    name: str
    slack_s: float | None = None


class Arbiter:
    """Start-time fair queueing (Goyal, Vin, Cheng, 1996) over models, with equal weights.

    Each model's clock counts the seconds it was served; the one furthest behind goes next. So beside a saturated large
    model a small one, whose step takes at most half as long, gets a step after each of the large one's, and more where
    they are shorter: its tokens come at most one and a half large steps apart. A model that was idle starts level with
    the others: it saves up no credit.

    A claim whose slack is below `urgent_s` goes first, but only while it is less than `max_lead_s` ahead, so that a
    model whose requests are all late cannot shut the other out; that much and a step is the longest that it holds up
    another's tokens.
    """

    def __init__(self, *, urgent_s: float = 0.25, max_lead_s: float = 0.25) -> None:
        self._urgent_s, self._max_lead_s = urgent_s, max_lead_s
        self._served: dict[str, float] = {}
        self._active: frozenset[str] = frozenset()

    def pick(self, claims: Sequence[Claim]) -> str:
        """The name of the claim to serve. Raises ValueError where there is none."""
        if not claims:
            raise ValueError("no model has work: ask only when one has")
        names = frozenset(claim.name for claim in claims)
        level = min(
            (self._served[name] for name in names & self._active), default=max(self._served.values(), default=0.0)
        )
        for name in names - self._active:
            self._served[name] = max(self._served.get(name, 0.0), level)
        self._active = names
        behind = min(self._served[name] for name in names)
        urgent = [
            (claim.slack_s, claim.name)
            for claim in claims
            if claim.slack_s is not None
            and claim.slack_s < self._urgent_s
            and self._served[claim.name] - behind < self._max_lead_s
        ]
        if urgent:
            return min(urgent)[1]
        return min(claims, key=lambda claim: self._served[claim.name]).name

    def charge(self, name: str, seconds: float) -> None:
        """Count the seconds that the step of `name` took."""
        self._served[name] = self._served.get(name, 0.0) + seconds
