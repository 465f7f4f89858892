"""Principal components of dense vectors: prefill states, sentence embeddings, static word vectors."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.projection import Floats, Projection, fit_projection


@dataclass(frozen=True, slots=True, eq=False)
class DenseProjection:
    """mean float32 [width] centres the vectors; `projection` has as many inputs.

    A vector of zeros stands for a part that the request does not have (a question without options): it projects to
    zeros, the middle of the training data.
    """

    mean: NDArray[np.float32]
    projection: Projection

    @property
    def n_outputs(self) -> int:
        """Length of a projected row."""
        return self.projection.n_outputs

    def project(self, vectors: NDArray[np.float32]) -> Floats:
        """Vectors [n, width] to float64 [n, n_outputs]. ValueError: vectors of another width."""
        self._check(vectors.shape[1])
        centred = vectors - self.mean
        # float32 throughout: converting the components at every decision would cost more than the product.
        coordinates = (centred @ self.projection.components).astype(np.float64)
        outputs = self.projection.standardise(coordinates, np.square(centred).sum(axis=1, dtype=np.float64))
        outputs[~vectors.any(axis=1)] = 0.0
        return outputs

    def project_one(self, vector: NDArray[np.float32]) -> Floats:
        """`project` of one vector [width], float64 [n_outputs]."""
        self._check(len(vector))
        outputs = np.zeros(self.n_outputs)
        if not vector.any():
            return outputs
        centred = vector - self.mean
        coordinates = outputs[:-1]
        coordinates[:] = centred @ self.projection.components
        squared_length = float(np.add.reduce(np.square(centred), dtype=np.float64))
        unexplained = max(squared_length - float(coordinates @ coordinates), 0.0)
        outputs[-1] = math.log1p(unexplained / max(squared_length, 1e-12))
        outputs -= self.projection.mean
        outputs /= self.projection.scale
        return outputs

    def _check(self, width: int) -> None:
        if width != len(self.mean):
            raise ValueError(
                f"the request has a vector of {width} numbers, but the router was trained on "
                f"{len(self.mean)}: train a router on outcomes with this small model or encoder"
            )

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], n_components: int, rng: np.random.Generator) -> "DenseProjection":
        """Fit to those training vectors [n, width] that are not zeros throughout; to all where fewer than two are."""
        there = vectors[vectors.any(axis=1)]
        there = there if len(there) > 1 else vectors
        mean = there.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = (there - mean).astype(np.float64)
        n, width = centred.shape

        def dot(dense: Floats) -> Floats:
            product: Floats = centred @ dense
            return product

        def transposed_dot(dense: Floats) -> Floats:
            product: Floats = centred.T @ dense
            return product

        lengths = np.square(centred).sum(axis=1)
        return cls(mean, fit_projection(dot, transposed_dot, (n, width), lengths, n_components, rng))
