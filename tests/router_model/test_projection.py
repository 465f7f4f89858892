import numpy as np
import pytest

from router_model.dense_projection import DenseProjection
from router_model.projection import fit_projection, with_residual


def test_components_are_those_of_the_exact_decomposition() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([9.0, 5.0, 3.0, *([0.1] * 37)])
    matrix = rng.normal(size=(200, 40)) * spread
    lengths = np.square(matrix).sum(axis=1)
    fitted = fit_projection(lambda b: matrix @ b, lambda b: matrix.T @ b, matrix.shape, lengths, 3, rng)
    exact = np.linalg.svd(matrix)[2][:3].T
    np.testing.assert_allclose(np.abs(np.sum(fitted.components * exact, axis=0)), 1, atol=1e-5)
    outputs = fitted.standardise(matrix @ fitted.components, lengths)
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(axis=0), 1, atol=1e-5)


def test_the_residual_shows_what_the_components_do_not_explain() -> None:
    coordinates = np.array([[3.0, 4.0], [0.0, 0.0]])
    residual = with_residual(coordinates, np.array([25.0, 25.0]))[:, -1]
    np.testing.assert_allclose(residual, [0, np.log(2)])


def test_a_matrix_of_low_rank_gets_no_more_components_than_its_rank() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 10))
    lengths = np.square(matrix).sum(axis=1)
    fitted = fit_projection(lambda b: matrix @ b, lambda b: matrix.T @ b, matrix.shape, lengths, 5, rng)
    assert fitted.components.shape == (10, 2)


def test_a_vector_of_zeros_is_no_vector_and_stands_in_the_middle() -> None:
    rng = np.random.default_rng(2)
    vectors = (5 + rng.normal(size=(100, 12))).astype(np.float32)
    with_gaps = np.concatenate([vectors, np.zeros((40, 12), np.float32)])
    full, gappy = (DenseProjection.fit(rows, 4, np.random.default_rng(0)) for rows in (vectors, with_gaps))
    np.testing.assert_array_equal(full.projection.components, gappy.projection.components)
    assert not gappy.project(with_gaps)[100:].any()
    np.testing.assert_allclose(gappy.project(vectors).mean(axis=0), 0, atol=1e-5)
    for vector in with_gaps[95:105]:
        np.testing.assert_allclose(gappy.project_one(vector), gappy.project(vector[None])[0], atol=1e-12)


def test_vectors_that_are_nowhere_there_project_to_nothing() -> None:
    nothing = np.zeros((20, 6), np.float32)
    assert not DenseProjection.fit(nothing, 4, np.random.default_rng(0)).project(nothing).any()


def test_a_vector_of_another_width_is_refused() -> None:
    fitted = DenseProjection.fit(
        np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32), 4, np.random.default_rng(0)
    )
    with pytest.raises(ValueError, match="a vector of 7 numbers, but the router was trained on 6"):
        fitted.project(np.ones((1, 7), np.float32))
    with pytest.raises(ValueError, match="a vector of 7 numbers, but the router was trained on 6"):
        fitted.project_one(np.ones(7, np.float32))
