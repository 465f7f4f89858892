"""Which answered requests the gateway learns from: chance decides, with a probability that is written down."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from gateway.openai.job import Job
from gateway.routing.decision import Reason
from gateway.routing.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Draw:
    """probability: with which it would have been drawn, 0 to 1."""

    is_drawn: bool
    probability: float

    @classmethod
    def by_chance(cls, probability: float, rng: np.random.Generator) -> Self:
        """Draw. What came of the request has no say in it, or the drawn would be no sample of the others."""
        return cls(bool(rng.random() < probability), probability)


NEVER: Final = Draw(is_drawn=False, probability=0.0)


def may_learn_from(job: Job, outcome: Outcome) -> bool:
    """Whether the router chose the model, and the client lets us learn from it."""
    return job.ask.may_explore and outcome.decision.reason != Reason.EXPLICIT
