"""Projections of wide inputs to a few standardised numbers: principal components.

The components come from a randomised singular value decomposition (Halko, Martinsson and Tropp, 2011, algorithms 4.4
and 5.1), which needs products with the matrix only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_OVERSAMPLING = 10
_POWER_ITERATIONS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """components [n_inputs, k]; mean and scale [k + 1] standardise the k coordinates and the residual.

    The residual is log(1 + squared length that the components do not explain / squared length): a text of unknown words
    projects to the middle of the cloud, and only this last coordinate shows how little of it was understood.
    """

    components: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def n_outputs(self) -> int:
        """Length of what `standardise` returns."""
        return len(self.mean)

    def standardise(self, coordinates: Floats, squared_lengths: Floats) -> Floats:
        """[n, k] coordinates and [n] squared lengths of the inputs to [n, k + 1] numbers of mean 0 and deviation 1."""
        return (with_residual(coordinates, squared_lengths) - self.mean) / self.scale


def fit_projection(
    dot: Callable[[Floats], Floats],
    transposed_dot: Callable[[Floats], Floats],
    shape: tuple[int, int],
    squared_lengths: Floats,
    k: int,
    rng: np.random.Generator,
) -> Projection:
    """Fit to a matrix of `shape` [n, n_inputs] known by its products with dense matrices; at most k components."""
    k = min(k, *shape)
    basis = _range_basis(dot, transposed_dot, shape, k, rng)
    _, singular, right = np.linalg.svd(transposed_dot(basis).T, full_matrices=False)
    kept = max(1, int((singular[:k] > 1e-6 * max(singular[0], 1e-12)).sum()))
    components = right[:kept].T
    # A component's sign is arbitrary: fixed, so that equal data gives equal bytes.
    strongest = components[np.abs(components).argmax(axis=0), np.arange(kept)]
    components = (components * np.where(strongest < 0, -1.0, 1.0)).astype(np.float32)
    outputs = with_residual(dot(components.astype(np.float64)), squared_lengths)
    scale = outputs.std(axis=0)
    return Projection(
        components, outputs.mean(axis=0).astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)
    )


def with_residual(coordinates: Floats, squared_lengths: Floats) -> Floats:
    """[n, k] to [n, k + 1]: the coordinates and the residual described at Projection."""
    explained = np.square(coordinates).sum(axis=-1)
    share = np.clip(squared_lengths - explained, 0, None) / np.maximum(squared_lengths, 1e-12)
    return np.concatenate([coordinates, np.log1p(share)[..., None]], axis=-1)


def _range_basis(
    dot: Callable[[Floats], Floats],
    transposed_dot: Callable[[Floats], Floats],
    shape: tuple[int, int],
    k: int,
    rng: np.random.Generator,
) -> Floats:
    """An orthonormal basis [n, k + oversampling] of nearly the range of the matrix's k largest singular vectors."""
    width = min(k + _OVERSAMPLING, *shape)
    basis = np.linalg.qr(dot(rng.standard_normal((shape[1], width))))[0]
    for _ in range(_POWER_ITERATIONS):
        basis = np.linalg.qr(transposed_dot(basis))[0]
        basis = np.linalg.qr(dot(basis))[0]
    return basis
