"""Norms, gates, embeddings and rotations in the interpreter against reference.py."""

import pytest
import torch

from kernels import activation, embedding, norm, reference
from tests.kernels.samples import normal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [24, 1500])
def test_norms_and_activation(size: int, dtype: torch.dtype) -> None:
    x, residual, weight = (normal(*shape, seed=i).to(dtype) for i, shape in enumerate([(3, size), (3, size), (size,)]))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    pairs = [
        (norm.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5)),
        *zip(
            norm.add_rms_norm(x, residual, weight, 1e-5), reference.add_rms_norm(x, residual, weight, 1e-5), strict=True
        ),
        (activation.silu_and_mul(x), reference.silu_and_mul(x)),
        (activation.gelu_tanh_and_mul(2 * x), reference.gelu_tanh_and_mul(2 * x)),
    ]
    for kernel, twin in pairs:
        torch.testing.assert_close(kernel, twin, atol=tolerance, rtol=tolerance)


@pytest.mark.filterwarnings("ignore:overflow")  # of the exponential, to infinity, as meant
def test_a_gate_far_below_zero_closes() -> None:
    gate_up = torch.tensor([[-200.0, -1e30, 5.0, 5.0]])
    assert activation.silu_and_mul(gate_up).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [None, 7.7])
@pytest.mark.parametrize("has_drawn", [False, True])
def test_embed(dtype: torch.dtype, scale: float | None, has_drawn: bool) -> None:
    table, drawn = normal(9, 1500).to(dtype), torch.tensor([8, 1])
    tokens = torch.tensor([3, -2, 0, -1]) if has_drawn else torch.tensor([3, 0, 8])
    arguments = (tokens, drawn if has_drawn else None, table, scale)
    assert torch.equal(embedding.embed(*arguments), reference.embed(*arguments))


@pytest.mark.parametrize("half", [6, 64])
def test_rotary_tables(half: int) -> None:
    """Up to angles of a million, where a cosine without exact reduction would be noise."""
    inv_freq = 1.0 / 500_000 ** (torch.arange(half) / half)
    positions = torch.tensor([0, 1, 77, 4095, 131_071, 999_983, 1_000_000])
    tables = embedding.rotary_tables(positions, inv_freq, 1.25)
    for kernel, twin in zip(tables, reference.rotary_tables(positions, inv_freq, 1.25), strict=True):
        torch.testing.assert_close(kernel, twin, atol=1e-5, rtol=0)
