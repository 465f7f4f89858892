import numpy as np

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
