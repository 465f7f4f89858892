"""The kernels around an exact int8 product in the interpreter: the bits of their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.layers import Linear
from engine.quantization import W8A8Linear
from kernels import int8_rows, reference_linear
from tests.kernels.samples import normal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@settings(max_examples=25)
@given(
    n=st.integers(1, 5),
    size=st.one_of(st.integers(1, 60), st.just(5000)),
    more=st.tuples(st.integers(0, 3), st.integers(0, 8)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_rows_are_rounded_to_the_same_bits(
    n: int, size: int, more: tuple[int, int], dtype: torch.dtype, seed: int
) -> None:
    x = (3 * normal(n, size, seed=seed)).to(dtype)
    x[0] = 0  # a row without a largest value
    x[-1, : size // 2] = 0.5 * x[-1].abs().max()  # halves of steps
    shape = (n + more[0], size + more[1])
    rounded, scales = int8_rows.quantize_rows(x, *shape)
    expected, expected_scales = reference_linear.quantize_rows(x, *shape)
    assert rounded.shape == expected.shape == shape
    assert torch.equal(rounded[:n, :size], expected[:n, :size])
    assert torch.equal(scales, expected_scales)


@settings(max_examples=25)
@given(
    n=st.integers(1, 4),
    size=st.one_of(st.integers(1, 40), st.just(1100)),
    more=st.tuples(st.integers(0, 3), st.integers(0, 8)),
    has_bias=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_sums_are_scaled_back_to_the_same_bits(
    n: int, size: int, more: tuple[int, int], has_bias: bool, dtype: torch.dtype
) -> None:
    sums = (1e6 * normal(n + more[0], size + more[1])).int()
    bias = normal(size, seed=3) if has_bias else None
    arguments = (1e-6 * normal(n, seed=1).abs(), normal(size, seed=2), bias, dtype)
    actual = int8_rows.scale_sums(sums, *arguments)
    torch.testing.assert_close(actual, reference_linear.scale_sums(sums, *arguments), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "n_in", "n_out"), [(1, 24, 16), (5, 33, 9), (40, 8, 30)])
def test_a_product_on_a_gpu_is_that_of_the_definition(n: int, n_in: int, n_out: int, dtype: torch.dtype) -> None:
    linear = Linear(normal(n_out, n_in).to(dtype), normal(n_out, seed=1).to(dtype))
    quantized = W8A8Linear.quantize(linear, None)
    x = normal(n, n_in, seed=2).to(dtype)
    torch.testing.assert_close(quantized._compute_on_gpu(x), quantized.compute(x), atol=0, rtol=0)
