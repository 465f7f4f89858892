"""A trained router as a function: features in, calibrated predictions out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router_model.calibration import CalibrationMap
from router_model.encoder import Encoder
from router_model.features import Features
from router_model.heads import Heads
from router_model.logistic import Floats
from router_model.score import routing_score


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """For n requests, each float64 [n].

    p_small, p_large: calibrated probability that the model answers right. ood: distance to the training data, 1 being
    the 99 % quantile of held-out training prompts. score: see routing_score. small_tokens, large_tokens: expected
    output, None where no counts were recorded.
    """

    p_small: Floats
    p_large: Floats
    ood: Floats
    score: Floats
    small_tokens: Floats | None
    large_tokens: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class RouterModel:
    """Encoder, heads and calibration. radius: the distance that counts as ood 1. large_prior: see routing_score."""

    encoder: Encoder
    heads: Heads
    small_map: CalibrationMap
    large_map: CalibrationMap
    radius: float
    large_prior: float

    def predict(self, features: Sequence[Features]) -> Predictions:
        """Predictions for requests. ValueError: features of another kind or size than those trained on."""
        raw = self.heads.outputs(self.encoder.encode_all(features))
        p_small, p_large = self.small_map.apply(raw.logit_small), self.large_map.apply(raw.logit_large)
        ood: Floats = np.asarray(raw.distance / self.radius)
        score = routing_score(p_small, p_large, ood, self.large_prior)
        return Predictions(p_small, p_large, ood, score, raw.small_tokens, raw.large_tokens)
