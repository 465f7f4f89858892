"""The routing score, p_large - p_small, and the distance beyond which it is not believed."""

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

EDGE = 1.0
"""The out-of-domain distance beyond which a request is unlike the training data."""

SPAN = 0.5
"""Beyond the edge it takes this much more distance until nothing is left of what was learned."""


def trust(ood: Floats) -> Floats:
    """How far what was learned is believed at a distance [n]: 1 in domain, 0 from EDGE + SPAN on."""
    believed: Floats = 1.0 - np.clip((ood - EDGE) / SPAN, 0.0, 1.0)
    return believed


def trust_one(ood: float) -> float:
    """`trust` at one distance."""
    return 1.0 - min(max((ood - EDGE) / SPAN, 0.0), 1.0)


def goes_large(score: Floats, ood: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which requests the large model gets:

    those worth it, and those out of domain, where no threshold keeps its promise.
    """
    return (score >= threshold) | (ood > EDGE)
