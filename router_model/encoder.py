"""From features to one short vector of standardised numbers, which is all that the heads see.

state       cheap, entropy, margin | components of the hidden states
embedding   cheap                  | components of the sentence embedding
text        cheap, rarity of words | components of the stem's word vectors, of the options'
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from router_model.dense_projection import DenseProjection
from router_model.features import Features, Kind
from router_model.projection import Floats

T = TypeVar("T")

FAR = 20.0
"""Numbers beyond this many deviations are held here, so that nothing overflows."""

N_COMPONENTS: Mapping[Kind, Mapping[str, int]] = {
    Kind.STATE: {"state": 32},
    Kind.EMBEDDING: {"embedding": 48},
    Kind.TEXT: {"stem": 32, "options": 24},
}
"""Components kept of each dense part of a kind.

On MMLU outcomes 16 and 8 for stem and options were worse (APGR 0.716 against 0.725 in domain), and 32 components of
n-grams of words and bytes beside them changed nothing. Of hidden states 8 to 32 served equally and 96 no better.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Encoder:
    """The fitted encoding of one kind of features: the plain ones standardised, the wide ones projected.

    plain_mean and plain_scale float32 [p]: of the cheap features and the few others at the head of the table above.
    dense: projections by name of the part.
    """

    kind: Kind
    plain_mean: NDArray[np.float32]
    plain_scale: NDArray[np.float32]
    dense: Mapping[str, DenseProjection]

    @property
    def n_outputs(self) -> int:
        """Length of an encoded vector."""
        return len(self.plain_mean) + sum(one.n_outputs for one in self.dense.values())

    def encode(self, features: Features) -> Floats:
        """One request, float64 [n_outputs]. ValueError: features of another kind, or a vector of another size."""
        parts: list[NDArray[np.float32] | Floats] = [(_plain(features, self.kind) - self.plain_mean) / self.plain_scale]
        parts += [one.project_one(_vector(features, name, self.kind)) for name, one in self.dense.items()]
        encoded: Floats = np.minimum(np.maximum(np.concatenate(parts), -FAR), FAR)
        return encoded

    def encode_all(self, features: Sequence[Features]) -> Floats:
        """Requests, float64 [n, n_outputs]. ValueError as for `encode`."""
        plain = np.stack([_plain(one, self.kind) for one in features])
        parts = [(plain - self.plain_mean) / self.plain_scale]
        parts += [one.project(_vectors(features, name, self.kind)) for name, one in self.dense.items()]
        encoded: Floats = np.clip(np.concatenate(parts, axis=1), -FAR, FAR)
        return encoded

    @classmethod
    def fit(cls, features: Sequence[Features], rng: np.random.Generator) -> "Encoder":
        """Fit to the training features, all of one kind. ValueError if they are not, or if there are none."""
        if not features:
            raise ValueError("an encoder needs training rows")
        kind = features[0].kind
        plain = np.stack([_plain(one, kind) for one in features])
        # What never varied in training says nothing, of the answer nor of being far: it is 0 whatever a request has.
        scale = plain.std(axis=0, dtype=np.float64)
        scale = np.where(scale > 1e-4, scale, np.inf)
        dense = {
            name: DenseProjection.fit(_vectors(features, name, kind), n_components, rng)
            for name, n_components in N_COMPONENTS[kind].items()
        }
        return cls(kind, plain.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32), dense)


def _plain(features: Features, kind: Kind) -> NDArray[np.float32]:
    """The plain numbers of a request, [p]."""
    if features.kind is not kind:
        raise ValueError(f"a router of kind {kind.value} was given features of another kind")
    match kind:
        case Kind.STATE:
            return np.concatenate((features.cheap, _given(features.first_token, kind)))
        case Kind.EMBEDDING:
            return features.cheap
        case Kind.TEXT:
            return np.concatenate((features.cheap, _given(features.vectors, kind).shape))


def _vectors(features: Sequence[Features], name: str, kind: Kind) -> NDArray[np.float32]:
    """One dense part of every request, [n, width]."""
    parts = [_vector(one, name, kind) for one in features]
    if len(sizes := {len(part) for part in parts}) > 1:
        raise ValueError(f"the requests' vectors have different sizes {sorted(sizes)}: one router reads one model")
    return np.stack(parts)


def _vector(features: Features, name: str, kind: Kind) -> NDArray[np.float32]:
    """One dense part of a request, [width]."""
    match name:
        case "state":
            return _given(features.state, kind).ravel()
        case "embedding":
            return _given(features.embedding, kind)
        case "stem":
            return _given(features.vectors, kind).stem
        case _:
            return _given(features.vectors, kind).options


def _given(part: T | None, kind: Kind) -> T:
    if part is None:
        raise ValueError(f"a router of kind {kind.value} was given features of another kind")
    return part
