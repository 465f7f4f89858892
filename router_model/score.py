"""The routing score: how much a request is expected to gain from the large model."""

import numpy as np

from router_model.logistic import Floats


SPAN = 0.25
"""From the edge of what training saw (ood 1) it takes this much more distance until nothing learned of p_large is left.

Trained on MMLU, GSM8K lies at about 1.13 with p_large wrong by 0.33: a wider span would trust it.
"""


def shrinkage(ood: Floats) -> Floats:
    """How much of the learned gap is given up, 0 to 1."""
    return np.clip((ood - 1.0) / SPAN, 0.0, 1.0)


def routing_score(p_small: Floats, p_large: Floats, ood: Floats) -> Floats:
    """p_large - p_small, shrunk towards 1 - p_small with the out-of-domain distance; in [-1, 1].

    Far from the training data p_large does not transfer, and 1 - p_small ranks better (on MT-Bench and on unseen
    families of questions); it also errs on the side of the large model, which is the safe one.
    """
    trust = 1.0 - shrinkage(ood)
    score: Floats = trust * p_large + (1.0 - trust) - p_small
    return score
