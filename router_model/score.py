"""The routing score: how much a request is expected to gain from the large model, and what is done with it."""

import numpy as np
from numpy.typing import NDArray

from router_model.logistic import Floats

EDGE = 1.0
"""The out-of-domain distance beyond which a request is unlike the training data."""

SPAN = 0.5
"""Beyond the edge it takes this much more distance until nothing is left of what was learned about p_large."""


def routing_score(p_small: Floats, p_large: Floats, ood: Floats, large_prior: float) -> Floats:
    """p_large - p_small, in [-1, 1]; out of domain p_large fades into `large_prior`, its mean in training.

    Far from the training data p_large does not transfer, and 1 - p_small ranks better; large_prior - p_small ranks the
    same and stays on the scale of the gap. With 1 in its place, unfamiliar requests were all put above familiar ones,
    which ranked a mixture of both worse than chance.
    """
    trust = 1.0 - np.clip((ood - EDGE) / SPAN, 0.0, 1.0)
    score: Floats = trust * p_large + (1.0 - trust) * large_prior - p_small
    return score


def goes_large(score: Floats, ood: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which requests the large model gets:

    those worth it, and those out of domain, where no threshold keeps its promise.
    """
    return (score >= threshold) | (ood > EDGE)
