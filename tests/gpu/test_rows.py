"""What lies between the products of a layer, on the GPU against the definitions."""

import pytest
import torch

from kernels import activation, cache_write, embedding, norm, page_sums, reference
from kernels.quantized_pages import FORMATS, dequantize, page_rows
from tests.gpu.machine import DEVICE, TOLERANCE, needs, pick
from tests.kernels.samples import normal

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HEADS = pick([(32, 8, 128), (14, 2, 64), (8, 4, 256), (7, 1, 96)], [(4, 2, 16)])
CACHES = [
    *((HEADS[0], dtype, pages) for dtype in DTYPES for pages in (None, *FORMATS)),
    *((heads, torch.bfloat16, pages) for heads in HEADS[1:] for pages in (None, torch.int8)),
]
"""Heads, dtype, and that of the pages: each is compiled, so not all of them with all."""


def on_device(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return normal(*shape, seed=seed).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", pick([896, 4096, 14_336], [24]))
@pytest.mark.parametrize("rows", pick([1, 7, 1000], [3]))
def test_norms_and_gates(rows: int, size: int, dtype: torch.dtype) -> None:
    x, residual = on_device(rows, size, dtype=dtype), on_device(rows, size, dtype=dtype, seed=1)
    weight, tolerance = on_device(size, dtype=dtype, seed=2), TOLERANCE[dtype]
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [None, 7.7])
@pytest.mark.parametrize("size", pick([64, 4096], [24]))
def test_embed(size: int, scale: float | None, dtype: torch.dtype) -> None:
    table = on_device(500, size, dtype=dtype)
    tokens, drawn = torch.tensor([3, -2, 0, 499, -1], device=DEVICE), torch.tensor([8, 1], device=DEVICE)
    for arguments in ((tokens, drawn, table, scale), (tokens.abs(), None, table, scale)):
        assert torch.equal(embedding.embed(*arguments), reference.embed(*arguments))


@pytest.mark.parametrize("half", [32, 64, 128])
def test_rotary_tables(half: int) -> None:
    """Against float64: up to angles of a million, where a cosine without exact reduction is noise."""
    inv_freq = 1.0 / 500_000 ** (torch.arange(half) / half)
    positions = torch.tensor([0, 1, 77, 4095, 131_071, 999_983, 1_000_000])
    angles = (positions[:, None].float() * torch.cat((-inv_freq, inv_freq))).double()
    cos, sin = embedding.rotary_tables(positions.to(DEVICE), inv_freq.to(DEVICE), 1.25)
    torch.testing.assert_close(cos.cpu().double(), angles.cos() * 1.25, atol=1e-5, rtol=0)
    torch.testing.assert_close(sin.cpu().double(), angles.sin() * 1.25, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("heads", "dtype", "pages_dtype"), CACHES)
@pytest.mark.parametrize("is_normed", [False, True])
def test_rope_and_cache(
    is_normed: bool, heads: tuple[int, int, int], dtype: torch.dtype, pages_dtype: torch.dtype | None
) -> None:
    (n_heads, n_kv_heads, head_dim), n, block_size = heads, pick(77, 5), 16
    if pages_dtype is not None:
        needs(pages_dtype)
    qkv = on_device(n, n_heads + 2 * n_kv_heads, head_dim, dtype=dtype)
    inv_freq = (1.0 / 10_000 ** (torch.arange(0, head_dim, 2) / head_dim)).to(DEVICE)
    tables = reference.rotary_tables(torch.arange(3, 3 + n, device=DEVICE), inv_freq, 1.0)
    slots = torch.randperm(10 * block_size, generator=torch.Generator().manual_seed(0))[:n].to(DEVICE)
    slots[1] = -1
    weights = [on_device(head_dim, dtype=dtype, seed=seed) for seed in (2, 3)] if is_normed else [None, None]
    stored = pages_dtype or dtype
    shape = (10, 2, n_kv_heads, page_rows(block_size, head_dim, stored), head_dim)
    pages, expected_pages = (torch.zeros(shape, dtype=stored, device=DEVICE) for _ in range(2))
    expected = reference.rope_and_cache(qkv, *tables, expected_pages, slots, *weights, 1e-6)
    q = cache_write.rope_and_cache(qkv, *tables, pages, slots, *weights, 1e-6)
    torch.testing.assert_close(q, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    found, wanted = (dequantize(each, block_size).float() for each in (pages, expected_pages))
    # What is rounded to 8 bits may differ in its last bit before, and then by a step after.
    tolerance = TOLERANCE[dtype] if pages_dtype is None else 0.13
    torch.testing.assert_close(found, wanted, atol=tolerance / 2, rtol=tolerance)
    if pages_dtype is not None:
        assert (found != wanted).float().mean() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", pick([64, 4096], [5]))
def test_page_sums_are_the_same_bits(size: int, dtype: torch.dtype) -> None:
    segments = torch.tensor([[3, 0, 9, 1], [1, 9, 2, 0], [0, 0, 0, 1], [4, 11, 16, 0], [5, 27, 1, 1]])
    segments = segments.int().to(DEVICE)
    states, sums = on_device(28, size, dtype=dtype, seed=1), on_device(6, size, dtype=torch.float32) * 100
    expected = sums.clone()
    reference.add_page_sums(expected, states, segments)
    page_sums.add_page_sums(sums, states, segments)
    assert torch.equal(sums, expected)
    links = torch.tensor([[2, -1], [0, -1], [3, 2], [-1, -1], [1, 0], [-1, 3], [4, 3]]).int().to(DEVICE)
    before = on_device(6, size, dtype=torch.float32, seed=2)
    expected = before.clone()
    reference.carry_page_sums(expected, sums, links)
    page_sums.carry_page_sums(before, sums, links)
    assert torch.equal(before, expected)
