"""Products with small weights on the GPU against their definitions."""

import pytest
import torch

from engine.config import Quantization
from engine.models.layers import Linear
from engine.quantization import converter
from engine.quantization.int4 import pack_columns
from engine.quantization.rounding import round_rows
from kernels import linear, reference_linear
from tests.gpu.machine import DEVICE, TOLERANCE, needs, pick
from tests.kernels.samples import normal

GPU = torch.device("cuda")
FORMS = ["none", "w8a8", "int8", *pick(["fp8"], []), "int4"]  # the engine asks a GPU whether it has fp8
SHAPES = pick([(6144, 4096), (4096, 14_336), (1000, 1001)], [(40, 96)])
CASES = [
    *((shape, torch.bfloat16, rows) for shape in SHAPES for rows in pick([1, 20, 64, 100], [1, 18])),
    *((SHAPES[0], dtype, 33) for dtype in (torch.float16, torch.float32)),
]
"""Outputs and inputs, dtype, rows: most are compiled, so not all of them with all."""


@pytest.mark.parametrize(("shape", "dtype", "rows"), CASES)
@pytest.mark.parametrize("kind", ["int8", "fp8", "int4"])
def test_a_kernel_multiplies_as_its_definition(
    kind: str, shape: tuple[int, int], rows: int, dtype: torch.dtype
) -> None:
    if kind == "fp8":
        needs(torch.float8_e4m3fn)
    (n, k), bias = shape, normal(shape[0], seed=2).to(DEVICE)
    x, weight = normal(rows, k).to(DEVICE, dtype), normal(n, k, seed=1).to(DEVICE) / k**0.5
    if kind == "int4":
        packed = pack_columns(weight.cpu()).to(DEVICE)
        actual, expected = (of.linear_4bit(x, packed, bias, k) for of in (linear, reference_linear))
    else:
        rounded, scale = round_rows(weight, torch.int8 if kind == "int8" else torch.float8_e4m3fn)
        actual, expected = (of.linear_8bit(x, rounded, scale, bias) for of in (linear, reference_linear))
    torch.testing.assert_close(actual, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("quantize", FORMS)
def test_a_form_is_near_the_weights_it_was_made_of_for_few_rows_and_many(quantize: Quantization) -> None:
    n, k = pick((1024, 2048), (24, 96))
    source = Linear((normal(n, k, seed=1) / k**0.5).to(DEVICE, torch.bfloat16), normal(n, seed=2).to(DEVICE).bfloat16())
    form = converter(quantize, torch.bfloat16, GPU, is_invariant=False)(source)
    for rows in pick((1, 40, 64, 65, 300), (1, 70)):
        x = normal(rows, k, seed=rows).to(DEVICE, torch.bfloat16)
        error = (form(x).float() - source(x).float()).norm() / source(x).float().norm()
        assert error < (0.15 if quantize == "int4" else 0.04), f"{rows} rows"


@pytest.mark.parametrize("quantize", FORMS)
def test_an_invariant_form_gives_a_row_the_same_bits_in_any_number(quantize: Quantization) -> None:
    n, k = pick((1536, 2048), (24, 96))
    source = Linear((normal(n, k, seed=1) / k**0.5).to(DEVICE, torch.bfloat16))
    form = converter(quantize, torch.bfloat16, GPU, is_invariant=True)(source)
    x = normal(pick(300, 70), k).to(DEVICE, torch.bfloat16)
    every = form(x)
    for first, last in pick(((0, 1), (3, 20), (30, 70), (64, 128), (0, 257)), ((0, 1), (30, 70))):
        assert torch.equal(form(x[first:last]), every[first:last])
