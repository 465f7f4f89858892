"""From features to one short vector of standardised numbers, which is all that the heads see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from router_model.features import Features, Kind
from router_model.projection import Floats
from router_model.state_projection import StateProjection
from router_model.text_projection import TextProjection

T = TypeVar("T")

FAR = 20.0
"""Numbers beyond this many deviations are held here, so that nothing overflows."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """The fitted encoding of one kind of features: the plain ones standardised, the wide ones projected.

    plain_mean and plain_scale float32 [p]: of the cheap features and, for kind `state`, of entropy and margin.
    """

    plain_mean: NDArray[np.float32]
    plain_scale: NDArray[np.float32]
    wide: StateProjection | TextProjection

    @property
    def kind(self) -> Kind:
        """The kind of features that it reads."""
        return Kind.STATE if isinstance(self.wide, StateProjection) else Kind.TEXT

    @property
    def n_outputs(self) -> int:
        """Length of an encoded vector."""
        return len(self.plain_mean) + self.wide.n_outputs

    def encode(self, features: Features) -> Floats:
        """One request, float64 [n_outputs]. ValueError: features of another kind, or a state of another size."""
        encoded: Floats = self.encode_all([features])[0]
        return encoded

    def encode_all(self, features: Sequence[Features]) -> Floats:
        """Requests, float64 [n, n_outputs]. ValueError as for `encode`."""
        plain = (_plain(features, self.kind) - self.plain_mean) / self.plain_scale
        if isinstance(self.wide, StateProjection):
            projected = self.wide.project(_states(features))
        else:
            projected = self.wide.project([_given(one.ngrams, Kind.TEXT) for one in features])
        encoded: Floats = np.clip(np.concatenate([plain, projected], axis=1), -FAR, FAR)
        return encoded

    @classmethod
    def fit(cls, features: Sequence[Features], rng: np.random.Generator) -> "Encoder":
        """Fit to the training features, all of one kind. ValueError if they are not, or if there are none."""
        if not features:
            raise ValueError("an encoder needs training rows")
        kind = features[0].kind
        plain = _plain(features, kind)
        scale = plain.std(axis=0, dtype=np.float64)
        wide: StateProjection | TextProjection
        if kind is Kind.STATE:
            wide = StateProjection.fit(_states(features), rng)
        else:
            wide = TextProjection.fit([_given(one.ngrams, kind) for one in features], rng)
        # What never varied in training says nothing: a scale of 1 leaves it at 0 there.
        scale = np.where(scale > 1e-4, scale, 1.0)
        return cls(plain.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32), wide)


def _plain(features: Sequence[Features], kind: Kind) -> NDArray[np.float32]:
    cheap = np.stack([one.cheap for one in features])
    if kind is Kind.TEXT:
        return cheap
    return np.concatenate([cheap, np.stack([_given(one.first_token, kind) for one in features])], axis=1)


def _states(features: Sequence[Features]) -> NDArray[np.float32]:
    states = [_given(one.state, Kind.STATE) for one in features]
    if len(sizes := {len(state) for state in states}) > 1:
        raise ValueError(f"the prefill states have different sizes {sorted(sizes)}: one router reads one small model")
    return np.stack(states)


def _given(part: T | None, kind: Kind) -> T:
    if part is None:
        raise ValueError(f"a router of kind {kind.value} was given features of another kind")
    return part
