"""Forms of a product: each against its definition, and the promise that a row's bits do not depend on the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Quantization
from engine.models.layers import Linear, Projection
from engine.quantization import (
    Int4Linear,
    NativeLinear,
    TiledLinear,
    W8A8Linear,
    Weight4Linear,
    Weight8Linear,
    converter,
    w8a8,
)
from engine.quantization.int4 import pack_columns, pack_weight
from engine.quantization.rounding import round_rows
from kernels.native.kernels import library_for
from kernels.reference_linear import unpack_4bit
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


GPU = torch.device("cuda")


@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_forms_of_a_gpu_are_refused_on_a_cpu(quantize: Quantization) -> None:
    with pytest.raises(ValueError, match=rf"{quantize}.*use w8a8"):
        converter(quantize, torch.bfloat16, torch.device("cpu"), is_invariant=False)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="use none, w8a8, int8, int4, fp8"):
        converter("int3", torch.bfloat16, GPU, is_invariant=False)  # type: ignore[arg-type]


def test_float8_is_refused_where_the_gpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 6))
    with pytest.raises(ValueError, match=r"8\.6: use int8"):
        converter("fp8", torch.bfloat16, GPU, is_invariant=False)


@pytest.mark.parametrize("is_invariant", [False, True])
def test_a_gpu_gets_its_own_forms(is_invariant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    linear = build_linear(64, 8, torch.bfloat16)

    def form(quantize: Quantization) -> Projection:
        return converter(quantize, torch.bfloat16, GPU, is_invariant=is_invariant)(linear)

    plain = form("none")
    assert isinstance(plain, TiledLinear) if is_invariant else plain is linear
    assert isinstance(form("w8a8"), W8A8Linear)
    for quantize, dtype in (("int8", torch.int8), ("fp8", torch.float8_e4m3fn)):
        eight = form(quantize)
        assert isinstance(eight, Weight8Linear)
        assert (eight.weight.dtype, eight.is_invariant) == (dtype, is_invariant)
    four = form("int4")
    assert isinstance(four, Weight4Linear)
    assert four.is_invariant == is_invariant
    assert torch.equal(four.packed, pack_columns(linear.weight.float())), "the weights of a CPU"


@pytest.mark.parametrize("tile", [16, 64])
def test_tiles_have_as_many_rows_as_they_were_given(tile: int) -> None:
    seen = []

    class Watched(Linear):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().__call__(x)

    linear = build_linear(48, 8, torch.float32)
    x = normal(150, 48)
    torch.testing.assert_close(TiledLinear(Watched(linear.weight, linear.bias), tile)(x), linear(x))
    assert set(seen) == {tile}


@given(
    n_in=st.integers(1, 70),
    n_out=st.integers(1, 20),
    source=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    dtype=st.sampled_from([torch.int8, torch.float8_e4m3fn]),
    exponent=st.sampled_from([-130, -20, 0, 10]),
)
def test_rounded_rows_are_within_half_a_step(
    n_in: int, n_out: int, source: torch.dtype, dtype: torch.dtype, exponent: int
) -> None:
    weight = (normal(n_out, n_in) * 2.0**exponent).to(source)
    weight[0] = 0  # a row without a largest value
    before = weight.clone()
    rounded, scale = round_rows(weight, dtype)
    assert torch.equal(weight, before), "the source is left as it was"
    restored = rounded.double() * scale[:, None].double()
    assert bool(restored.isfinite().all())
    if exponent == -130:  # float32 itself ends here
        return
    error = (restored - weight.double()).abs()
    if dtype == torch.int8:
        bound = scale[:, None].double() / 2
    else:  # 3 bits of mantissa behind the leading one; below 2^-6 steps of 2^-9
        bound = weight.double().abs() / 16 + scale[:, None].double() * 2**-10
    assert bool((error <= 1.0001 * bound + 1e-30).all())


@settings(max_examples=30)
@given(n_in=st.integers(2, 70), n_out=st.integers(1, 20), n=st.integers(1, 40), has_bias=st.booleans())
def test_w8a8_filled_up_as_for_a_gpu_gives_the_same_bits(n_in: int, n_out: int, n: int, has_bias: bool) -> None:
    """From two inputs on, as all layers have: torch._int_mm of one is wrong on a CPU (seen in 2.13)."""
    linear, x = build_linear(n_in, n_out, torch.float32, has_bias), normal(n, n_in)
    plain = W8A8Linear.quantize(linear, None)
    weight, scale = round_rows(linear.weight, torch.int8, w8a8.SIZES_OF)
    assert weight.shape == (-(-n_out // 8) * 8, -(-n_in // 8) * 8)
    filled = W8A8Linear(weight, scale, plain.weight_sum, plain.bias, None)
    assert torch.equal(filled(x), plain(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch._int_mm of a GPU needs one")
@pytest.mark.parametrize("n", [1, 17, 100])
def test_w8a8_gives_a_row_the_same_bits_in_any_batch_of_a_gpu(n: int) -> None:
    linear = build_linear(100, 33, torch.bfloat16, has_bias=False)
    quantized = W8A8Linear.quantize(Linear(linear.weight.cuda()), None)
    x = normal(100, 100).bfloat16().cuda()
    assert torch.equal(quantized(x[:n]), quantized(x)[:n])


@given(n_in=st.integers(1, 200), n_out=st.integers(1, 9), dtype=dtypes)
def test_a_weight_packed_in_slices_is_the_weight_packed_at_once(n_in: int, n_out: int, dtype: torch.dtype) -> None:
    weight = normal(n_out, n_in).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.quantization.rounding.SLICE_BYTES", 8 * n_in)  # of two rows
        assert torch.equal(pack_weight(weight), pack_columns(weight.float()))


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
    restored = unpack_4bit(pack_columns(weight), n_in, torch.float32)
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
    weights = unpack_4bit(quantized.packed, n_in, torch.float32).double()
    expected = (levels.double() * scale[:, None].double()) @ weights.T
    if quantized.bias is not None:
        expected += quantized.bias.double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(quantized(x).double(), expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(quantized(x[: n // 2 + 1]), quantized(x)[: n // 2 + 1])
