"""Principal components of the small model's prefill state."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.projection import Floats, Projection, fit_projection

N_COMPONENTS = 96


@dataclass(frozen=True, slots=True, eq=False)
class StateProjection:
    """mean float32 [n_layers * 2 * hidden] centres the states; `projection` has as many inputs."""

    mean: NDArray[np.float32]
    projection: Projection

    @property
    def n_outputs(self) -> int:
        """Length of a projected row."""
        return self.projection.n_outputs

    def project(self, states: NDArray[np.float32]) -> Floats:
        """States [n, n_layers * 2 * hidden] to float64 [n, n_outputs]. ValueError: states of another size."""
        if states.shape[1] != len(self.mean):
            raise ValueError(
                f"the prefill state has {states.shape[1]} numbers, but the router was trained on {len(self.mean)}: "
                "train a router on outcomes of this small model"
            )
        centred = states - self.mean
        # float32 throughout: converting the components at every decision would cost more than the product.
        coordinates = (centred @ self.projection.components).astype(np.float64)
        return self.projection.standardise(coordinates, np.square(centred).sum(axis=1, dtype=np.float64))

    @classmethod
    def fit(cls, states: NDArray[np.float32], rng: np.random.Generator) -> "StateProjection":
        """Fit to the training prompts' states."""
        mean = states.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = (states - mean).astype(np.float64)
        n, width = centred.shape

        def dot(dense: Floats) -> Floats:
            product: Floats = centred @ dense
            return product

        def transposed_dot(dense: Floats) -> Floats:
            product: Floats = centred.T @ dense
            return product

        lengths = np.square(centred).sum(axis=1)
        return cls(mean, fit_projection(dot, transposed_dot, (n, width), lengths, N_COMPONENTS, rng))
