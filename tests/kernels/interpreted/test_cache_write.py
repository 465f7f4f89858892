"""The Triton kernels that rotate and cache, in the interpreter, against reference.rope_and_cache."""

import pytest
import torch

from kernels import cache_write, reference
from kernels.quantized_pages import FORMATS, dequantize, page_rows
from tests.kernels.samples import normal

N, BLOCK_SIZE = 5, 4
SLOTS = torch.tensor([7, 30, -1, 0, 13])  # one that writes nothing


def inputs(
    n_heads: int, n_kv_heads: int, head_dim: int, dtype: torch.dtype, *, is_normed: bool
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, torch.Tensor] | tuple[None, None]]:
    """(qkv, cos, sin), and the weights of both norms."""
    qkv = normal(N, n_heads + 2 * n_kv_heads, head_dim).to(dtype)
    inv_freq = 1.0 / 100 ** (torch.arange(0, head_dim, 2) / head_dim)
    tables = reference.rotary_tables(torch.arange(3, 3 + N), inv_freq, 1.0)
    weights = (normal(head_dim, seed=2).to(dtype), normal(head_dim, seed=3).to(dtype)) if is_normed else (None, None)
    return (qkv, *tables), weights


@pytest.mark.parametrize("is_normed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [(4, 2, 12), (7, 1, 8), (32, 8, 2)])
def test_rope_and_cache(heads: tuple[int, int, int], is_normed: bool, dtype: torch.dtype) -> None:
    tensors, norms = inputs(*heads, dtype, is_normed=is_normed)
    pages, expected_pages = (torch.zeros(10, 2, heads[1], BLOCK_SIZE, heads[2], dtype=dtype) for _ in range(2))
    expected = reference.rope_and_cache(*tensors, expected_pages, SLOTS, *norms, 1e-6)
    q = cache_write.rope_and_cache(*tensors, pages, SLOTS, *norms, 1e-6)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-3
    torch.testing.assert_close(q, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(pages, expected_pages, atol=tolerance, rtol=tolerance)
    assert torch.equal(pages[:, 1], expected_pages[:, 1])  # values are copied


def test_many_heads_take_several_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_write, "TILE", 16)
    monkeypatch.setattr(cache_write, "SCATTER_TILE", 16)
    test_rope_and_cache((4, 2, 12), True, torch.float32)
    test_rope_and_cache_quantised(True, torch.int8, torch.float32)


@pytest.mark.parametrize("is_normed", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("wide", [torch.float32, torch.bfloat16])
def test_rope_and_cache_quantised(is_normed: bool, dtype: torch.dtype, wide: torch.dtype) -> None:
    tensors, norms = inputs(4, 2, 12, wide, is_normed=is_normed)
    shape = (10, 2, 2, page_rows(BLOCK_SIZE, 12, dtype), 12)
    pages, expected_pages = (torch.zeros(shape, dtype=dtype) for _ in range(2))
    expected = reference.rope_and_cache(*tensors, expected_pages, SLOTS, *norms, 1e-6)
    q = cache_write.rope_and_cache(*tensors, pages, SLOTS, *norms, 1e-6)
    torch.testing.assert_close(q, expected, atol=1e-3, rtol=1e-3)
    # What is rounded may differ in its last bit before, and then by a step after.
    numbers, expected_numbers = (dequantize(each, BLOCK_SIZE) for each in (pages, expected_pages))
    torch.testing.assert_close(numbers, expected_numbers, atol=0.05, rtol=0.07)
    assert torch.equal(pages.view(torch.uint8)[:, 1], expected_pages.view(torch.uint8)[:, 1])  # with their scales
    assert (pages.view(torch.uint8) != expected_pages.view(torch.uint8)).float().mean() < 0.02
