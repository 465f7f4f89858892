"""Products with small weights: the Triton kernels in the interpreter against their definitions, and the forms of a GPU
over them, on CPU tensors."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models.layers import Linear
from engine.quantization import Weight4Linear, Weight8Linear, weight_only
from engine.quantization.int4 import pack_columns
from engine.quantization.rounding import round_rows
from kernels import linear, reference_linear
from tests.kernels.samples import normal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
SMALL = linear.Tile(16, 16, 64, 1, 4, 2)
FORMATS = ["int8", "fp8", "int4"]


def multiply(
    kind: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, **options: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel and what the definition make of it."""
    if kind == "int4":
        packed, k = pack_columns(weight), x.shape[1]
        return linear.linear_4bit(x, packed, bias, k, **options), reference_linear.linear_4bit(x, packed, bias, k)
    rounded, scale = round_rows(weight, torch.int8 if kind == "int8" else torch.float8_e4m3fn)
    definition = reference_linear.linear_8bit(x, rounded, scale, bias)
    return linear.linear_8bit(x, rounded, scale, bias, **options), definition


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=25)
@given(
    m=st.integers(1, 20),
    n=st.integers(1, 40),
    k=st.one_of(st.integers(1, 200), st.sampled_from([64, 128, 192])),
    splits=st.sampled_from([1, 2, 3]),
    has_bias=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_a_kernel_multiplies_as_its_definition(
    kind: str, m: int, n: int, k: int, splits: int, has_bias: bool, dtype: torch.dtype
) -> None:
    x, weight = normal(m, k).to(dtype), normal(n, k, seed=1) / k**0.5
    bias = normal(n, seed=2) if has_bias else None
    tile = linear.Tile(SMALL.block_m, SMALL.block_n, SMALL.block_k, splits, SMALL.warps, SMALL.stages)
    actual, expected = multiply(kind, x, weight, bias, tile=tile)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("m", "n", "k"), [(3, 70, 1024), (33, 65, 264), (70, 20, 1001)])
def test_the_tiles_of_the_table_are_right_where_nothing_divides(kind: str, m: int, n: int, k: int) -> None:
    x, weight = normal(m, k).bfloat16(), normal(n, k, seed=1) / k**0.5
    actual, expected = multiply(kind, x, weight, normal(n, seed=2))
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[x.dtype], rtol=TOLERANCE[x.dtype])


@given(
    m=st.integers(1, 500),
    n=st.integers(1, 300_000),
    k=st.integers(1, 60_000),
    itemsize=st.sampled_from([2, 4]),
)
def test_a_tile_follows_from_the_weights_and_the_block_of_rows(m: int, n: int, k: int, itemsize: int) -> None:
    tile = linear.tile_for(m, n, k, itemsize)
    assert tile == linear.tile_for(1, n, k, itemsize, block_m=tile.block_m), "another number of rows in the same block"
    assert tile.block_m == 64 or m <= tile.block_m
    assert tile.block_k % reference_linear.CHUNK == 0
    assert tile.splits == 1 or k >= 2 * tile.splits * tile.block_k


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=10)
@given(m=st.integers(2, 16), data=st.data())
def test_a_row_is_the_same_bits_beside_any_others_in_a_block(kind: str, m: int, data: st.DataObject) -> None:
    x, weight = normal(m, 100).bfloat16(), normal(20, 100, seed=1)
    row, tile = data.draw(st.integers(0, m - 1)), linear.Tile(16, 16, 64, 2, 4, 2)
    together, _ = multiply(kind, x, weight, None, tile=tile)
    alone, _ = multiply(kind, x[row : row + 1], weight, None, tile=tile)
    assert torch.equal(together[row : row + 1], alone)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_rows_give_no_rows(kind: str) -> None:
    actual, _ = multiply(kind, normal(0, 64), normal(3, 64, seed=1), None)
    assert actual.shape == (0, 3)


def build(kind: str, source: Linear, is_invariant: bool) -> Weight4Linear | Weight8Linear:
    if kind == "int4":
        return Weight4Linear.quantize(source, is_invariant=is_invariant)
    dtype = torch.int8 if kind == "int8" else torch.float8_e4m3fn
    return Weight8Linear.quantize(source, dtype, is_invariant=is_invariant)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_rows_and_many_are_multiplied_by_the_same_weights(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.quantization.rounding.SLICE_BYTES", 4 * 96 * 7)  # slices of 7 rows
    source = Linear((normal(33, 96, seed=1) / 96**0.5).to(dtype), normal(33, seed=2).to(dtype))
    form, x = build(kind, source, False), normal(weight_only.FEW_ROWS + 3, 96).to(dtype)
    tolerance = 2 * TOLERANCE[dtype]
    torch.testing.assert_close(form(x)[:5], form(x[:5]), atol=tolerance, rtol=tolerance)
    assert form.n_bytes < 0.65 * source.n_bytes


@pytest.mark.parametrize("kind", FORMATS)
def test_an_invariant_form_gives_a_row_the_same_bits_in_any_number(kind: str) -> None:
    form = build(kind, Linear((normal(20, 96, seed=1) / 10).bfloat16()), True)
    x = normal(weight_only.FEW_ROWS + 6, 96).bfloat16()
    every = form(x)
    for first, last in ((0, 1), (3, 20), (30, 70)):
        assert torch.equal(form(x[first:last]), every[first:last])


def run_ptx(text: str, inputs: list[int], dtype: torch.dtype) -> list[int]:
    """The registers $0 and $1 that a few instructions on 32-bit registers leave."""
    registers = {f"${2 + index}": value for index, value in enumerate(inputs)}

    def read(name: str) -> int:
        return registers[name] if name in registers else int(name, 0)

    def halves(value: int) -> torch.Tensor:
        return torch.tensor([value & 0xFFFF, value >> 16], dtype=torch.uint16).view(dtype).double()

    for statement in re.sub(r"\.reg[^;]*;|[{}]", "", text).split(";"):
        if not statement.strip():
            continue
        name, operands = statement.split(None, 1)
        to, *sources = (operand.strip() for operand in operands.split(","))
        a, *rest = (read(source) for source in sources)
        if name == "mov.b32":
            result = a
        elif name == "shr.u32":
            result = a >> rest[0]
        elif name == "prmt.b32":
            wide = a | rest[0] << 32
            result = sum((wide >> 8 * (rest[1] >> 4 * byte & 7) & 255) << 8 * byte for byte in range(4))
        elif name == "lop3.b32":
            assert rest[2] == 0xEA  # (a & b) | c
            result = a & rest[0] | rest[1]
        else:
            assert name == f"fma.rn.{'bf16x2' if dtype == torch.bfloat16 else 'f16x2'}"
            low, high = (halves(a) * halves(rest[0]) + halves(rest[1])).to(dtype).view(torch.uint16).tolist()
            result = low | high << 16
        registers[to] = result
    return [registers["$0"], registers["$1"]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@settings(max_examples=200)
@given(packed=st.integers(0, 2**32 - 1), scales=st.lists(st.floats(-60, 60, width=16), min_size=4, max_size=4))
def test_the_instructions_of_a_gpu_widen_to_the_bits_of_the_definition(
    packed: int, scales: list[float], dtype: torch.dtype
) -> None:
    rounded = torch.tensor(scales, dtype=torch.float16).to(dtype)
    pairs = [int(value) & 0xFFFFFFFF for value in rounded.view(torch.int32).tolist()]
    names = ("LOW_BF16", "HIGH_BF16") if dtype == torch.bfloat16 else ("LOW_FP16", "HIGH_FP16")
    for shift, name in zip((0, 4), names, strict=True):
        levels = torch.tensor([packed >> 8 * byte + shift & 15 for byte in range(4)])
        expected = ((levels - 8).double() * rounded.double()).to(dtype)
        words = run_ptx(getattr(linear, name).value, [packed, *pairs], dtype)
        actual = torch.tensor([half for word in words for half in (word & 0xFFFF, word >> 16)], dtype=torch.uint16)
        assert torch.equal(actual.view(dtype), expected)
