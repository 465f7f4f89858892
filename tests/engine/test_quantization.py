"""Forms of a product: each against its definition, and the promise that a row's bits do not depend on the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.layers import Linear
from engine.quantization import Int4Linear, NativeLinear, TiledLinear, W8A8Linear, converter
from engine.quantization.int4 import pack_columns, unpack_columns
from kernels.native.kernels import library_for
from tests.kernels.samples import normal

dtypes = st.sampled_from([torch.float32, torch.bfloat16])


def build_linear(n_in: int, n_out: int, dtype: torch.dtype, has_bias: bool = True) -> Linear:
    weight = (normal(n_out, n_in, seed=1) / n_in**0.5).to(dtype)
    return Linear(weight, normal(n_out, seed=2).to(dtype) if has_bias else None)


@settings(max_examples=60)
@given(
    n=st.integers(1, 150),
    n_in=st.sampled_from([2, 48, 64, 300]),
    n_out=st.sampled_from([1, 33, 96]),
    has_bias=st.booleans(),
    dtype=dtypes,
)
def test_w8a8_in_c_and_in_torch_give_the_same_bits(
    n: int, n_in: int, n_out: int, has_bias: bool, dtype: torch.dtype
) -> None:
    quantized = W8A8Linear.quantize(build_linear(n_in, n_out, dtype, has_bias), library_for(dtype))
    x = normal(n, n_in).to(dtype)
    x[n // 2] = 0  # a row without a largest value
    assert torch.equal(quantized(x), quantized.compute(x))


def test_w8a8_stays_within_the_error_of_its_rounding() -> None:
    linear, x = build_linear(256, 64, torch.float32), normal(20, 256)
    quantized = W8A8Linear.quantize(linear, library_for(torch.float32))
    # Half a step of each factor, times the other's sum of magnitudes.
    x_step, w_step = x.abs().amax(1, keepdim=True) / 127, linear.weight.abs().amax(1) / 127
    bound = (
        x_step / 2 * linear.weight.abs().sum(1) + w_step / 2 * x.abs().sum(1, keepdim=True) + 256 * x_step * w_step / 4
    )
    assert bool(((quantized(x) - linear(x)).abs() <= bound + 1e-5).all())
    assert quantized.n_bytes < linear.n_bytes / 3


@pytest.mark.parametrize("form", ["none", "w8a8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_library", [True, False])
@settings(max_examples=25)
@given(n=st.integers(1, 200), data=st.data())
def test_a_row_is_the_same_bits_in_any_batch(
    form: str, dtype: torch.dtype, with_library: bool, n: int, data: st.DataObject
) -> None:
    linear = build_linear(96, 80, dtype)
    library = library_for(dtype) if with_library else None
    if form == "w8a8":
        projection = W8A8Linear.quantize(linear, library)
    elif library is not None:
        projection = NativeLinear(linear, library, is_invariant=True)
    else:
        projection = TiledLinear(linear)
    x = normal(n, 96).to(dtype)
    first = data.draw(st.integers(0, n - 1))
    last = data.draw(st.integers(first + 1, n))
    assert torch.equal(projection(x[first:last]), projection(x)[first:last])
    torch.testing.assert_close(projection(x), linear(x), atol=0.05, rtol=0.05)


def test_quantised_weights_are_refused_on_a_gpu() -> None:
    with pytest.raises(ValueError, match=r"w8a8.*cuda"):
        converter("w8a8", torch.bfloat16, torch.device("cuda"), is_invariant=False)


def test_a_linear_that_keeps_its_precision_is_not_quantised() -> None:
    convert = converter("w8a8", torch.float32, torch.device("cpu"), is_invariant=False)
    linear = build_linear(64, 8, torch.float32)
    router = Linear(linear.weight, linear.bias, keeps_precision=True)
    assert isinstance(convert(linear), W8A8Linear)
    assert convert(router).n_bytes == linear.n_bytes
    x = normal(5, 64)
    torch.testing.assert_close(convert(router)(x), linear(x))


needs_library = pytest.mark.skipif(library_for(torch.float32) is None, reason="this machine cannot have the C kernels")


@settings(max_examples=40)
@given(n_in=st.sampled_from([1, 31, 64, 100, 600]), n_out=st.integers(1, 5), seed=st.integers(0, 99))
def test_packed_weights_are_within_half_a_step_of_what_they_stand_for(n_in: int, n_out: int, seed: int) -> None:
    weight = normal(n_out, n_in, seed=seed)
    restored = unpack_columns(pack_columns(weight), n_in)
    groups = torch.nn.functional.pad(weight, (0, -n_in % 32)).view(n_out, -1, 32)
    steps = groups.abs().amax(2, keepdim=True).expand_as(groups).reshape(n_out, -1)[:, :n_in] / 8
    # Half a step; a whole one where the group's other end is cut off at 7 steps; and float16's rounding of the scale.
    assert bool(((restored - weight).abs() <= 1.01 * steps).all())
    assert (restored - weight).abs().mean() <= 0.3 * steps.mean()


@needs_library
@settings(max_examples=60)
@given(
    n=st.integers(1, 140),
    n_in=st.sampled_from([2, 48, 64, 300, 1100]),
    n_out=st.sampled_from([1, 9, 33, 96]),
    has_bias=st.booleans(),
    dtype=dtypes,
)
def test_int4_multiplies_by_what_its_weights_stand_for(
    n: int, n_in: int, n_out: int, has_bias: bool, dtype: torch.dtype
) -> None:
    library = library_for(dtype)
    assert library is not None
    linear = build_linear(n_in, n_out, dtype, has_bias)
    quantized = Int4Linear.quantize(linear, library)
    assert torch.equal(quantized.packed, pack_columns(linear.weight.float()))
    x = normal(n, n_in).to(dtype)
    levels, scale = library.quantize_rows(x)
    expected = (levels.double() * scale[:, None].double()) @ unpack_columns(quantized.packed, n_in).double().T
    if quantized.bias is not None:
        expected += quantized.bias.double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(quantized(x).double(), expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(quantized(x[: n // 2 + 1]), quantized(x)[: n // 2 + 1])
