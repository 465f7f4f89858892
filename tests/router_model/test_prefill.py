import numpy as np
import pytest

from router_model.prefill import PrefillState


def test_a_state_comes_back_from_its_bytes() -> None:
    values = np.random.default_rng(0).normal(size=(2, 2, 5)).astype("<f4")
    state = PrefillState.from_bytes(values.tobytes(), values.shape, 1.0, 2.0)
    np.testing.assert_array_equal(state.values, values)
    halves = PrefillState.from_bytes(values.astype("<f2").tobytes(), values.shape, 1.0, 2.0, dtype="float16")
    assert halves.values.dtype == np.float32
    np.testing.assert_array_equal(halves.values, values.astype("<f2"))


def test_bytes_of_another_size_than_the_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="holds 3 values of float32"):
        PrefillState.from_bytes(bytes(12), (1, 2, 2), 1.0, 2.0)


def test_huge_numbers_are_numbers() -> None:
    values = np.full((1, 2, 4), np.finfo(np.float32).max)
    np.testing.assert_array_equal(PrefillState(values, 0.0, 0.0).values, values)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_state_with_a_value_that_is_none_is_refused(broken: float) -> None:
    values = np.ones((1, 2, 4), np.float32)
    values[0, 1, 3] = broken
    with pytest.raises(ValueError, match="not finite"):
        PrefillState(values, 0.0, 0.0)
    for entropy, margin in ((broken, 0.0), (0.0, broken)):
        with pytest.raises(ValueError, match="not finite"):
            PrefillState(np.ones((1, 2, 4), np.float32), entropy, margin)
