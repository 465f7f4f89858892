"""A trained router as a function: features in, calibrated predictions out.

features -> encoder -> heads -> stack -> calibration maps -> p_small, p_large
                                      \\-> gain: moves both until p_large - p_small is the gain
                             \\-> distance: far away both fade into what length alone says
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router_model.calibration import RouteMaps
from router_model.encoder import Encoder
from router_model.features import Features
from router_model.heads import HeadOutput, HeadOutputs, Heads
from router_model.logistic import Floats
from router_model.score import trust, trust_one
from router_model.stack import Stack, with_gain, with_gain_one


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """For n requests, each float64 [n].

    p_small, p_large: calibrated probability that the model answers right; score: their difference, large less small.
    ood: distance to the training data, 1 being the 99 % quantile of held-out training prompts. small_tokens,
    large_tokens: expected output, None where no counts were recorded.
    """

    p_small: Floats
    p_large: Floats
    ood: Floats
    score: Floats
    small_tokens: Floats | None
    large_tokens: Floats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predictions of one request as plain floats."""

    p_small: float
    p_large: float
    ood: float
    small_tokens: float | None = None
    large_tokens: float | None = None

    @property
    def score(self) -> float:
        """What the large model is expected to gain."""
        return self.p_large - self.p_small


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """How far the heads are believed, and what their words are worth: everything fitted to held-out outputs."""

    stack: Stack
    small_map: RouteMaps
    large_map: RouteMaps

    def apply(self, raw: HeadOutputs, routes: Sequence[str] = ()) -> Floats:
        """Probabilities [n, 2] whose difference is the gain. routes [n] or empty: their kinds of traffic."""
        logits, gains = self.stack.logits(raw), self.stack.gains(raw)
        p = self._probabilities(logits, ())
        if routes and (self.small_map.by_route or self.large_map.by_route):
            of_routes = self._probabilities(logits, routes)
            gains = gains + (of_routes[:, 1] - of_routes[:, 0]) - (p[:, 1] - p[:, 0])
            p = of_routes
        return with_gain(p, gains)

    def apply_one(self, raw: HeadOutput, route: str = "") -> tuple[float, float]:
        """`apply` to one request; route "" is none."""
        small, large = self.stack.logits_one(raw)
        gain = self.stack.gain_one(raw)
        p_small, p_large = self.small_map.apply_one(small), self.large_map.apply_one(large)
        if route in self.small_map.by_route or route in self.large_map.by_route:
            everyone = p_large - p_small
            p_small, p_large = self.small_map.apply_one(small, route), self.large_map.apply_one(large, route)
            gain += (p_large - p_small) - everyone
        return with_gain_one(p_small, p_large, gain)

    def _probabilities(self, logits: Floats, routes: Sequence[str]) -> Floats:
        maps = (self.small_map, self.large_map)
        return np.stack([one.apply(logits[:, side], routes) for side, one in enumerate(maps)], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class RouterModel:
    """radius: the distance that counts as ood 1."""

    encoder: Encoder
    heads: Heads
    calibrated: Calibrated
    radius: float

    def predict(self, features: Sequence[Features], routes: Sequence[str] = ()) -> Predictions:
        """Predictions for requests. routes: each one's kind of traffic, or none.

        ValueError: features of another kind or size than those trained on, or not as many routes.
        """
        if routes and len(routes) != len(features):
            raise ValueError(f"{len(routes)} routes were given for {len(features)} requests: give one each, or none")
        raw = self.heads.outputs(self.encoder.encode_all(features))
        return predictions(self.calibrated.apply(raw, routes), raw, self.radius)

    def predict_one(self, features: Features, route: str = "") -> Prediction:
        """`predict` for one request, which is what every decision waits for: on vectors and plain floats, since calls
        of numpy on matrices of one row cost more than their arithmetic. ValueError: as for `predict`.
        """
        raw = self.heads.outputs_one(self.encoder.encode(features))
        ood = raw.distance / self.radius
        believed = trust_one(ood)
        p_small, p_large = self.calibrated.apply_one(raw, route)
        small_tokens, large_tokens = raw.tokens or (None, None)
        return Prediction(
            p_small=believed * p_small + (1 - believed) * raw.far[0],
            p_large=believed * p_large + (1 - believed) * raw.far[1],
            ood=ood,
            small_tokens=small_tokens,
            large_tokens=large_tokens,
        )


def predictions(p: Floats, raw: HeadOutputs, radius: float) -> Predictions:
    """Probabilities [n, 2] with the heads' distances and tokens as predictions.

    Out of domain both probabilities fade into those that length alone gives. Over six transfers between three outcome
    files nothing ranked better there on the whole: neither the gap as it was learned nor 1 - p_small.
    """
    ood: Floats = np.asarray(raw.distance / radius)
    believed = trust(ood)[:, None]
    p = believed * p + (1 - believed) * raw.far
    return Predictions(p[:, 0], p[:, 1], ood, p[:, 1] - p[:, 0], raw.small_tokens, raw.large_tokens)
