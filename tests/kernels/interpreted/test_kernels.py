"""Every Triton kernel in the interpreter against its definition in reference.py. Tiny shapes: the interpreter is
slow."""

import math

import pytest
import torch

from kernels import AttentionSpec, activation, attention, cache_write, norm, reference, sampling, verify
from tests.kernels.samples import behind_windows, build_batch, normal, pack

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("rows", "heads", "block_size", "window", "split", "softcap"),
    [
        ([(1, 1), (1, 9), (1, 40)], (4, 2), 4, None, 512, None),  # decodes
        ([(7, 7), (5, 20), (1, 33), (3, 3)], (6, 2), 8, None, 512, None),  # chunks, drafts and a decode together
        ([(20, 20), (2, 30)], (2, 2), 16, 5, 512, None),  # a window, no groups
        ([(1, 70), (4, 41), (1, 3)], (8, 1), 4, None, 32, 0.5),  # splits, also empty ones; a soft cap
        ([(1, 70), (3, 20)], (4, 2), 4, 9, 32, None),  # splits that a window leaves empty
    ],
)
def test_paged_attention(
    rows: list[tuple[int, int]],
    heads: tuple[int, int],
    block_size: int,
    window: int | None,
    split: int,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    n_heads, n_kv_heads = heads
    n_pages = sum(-(-context // block_size) + 1 for _, context in rows)
    batch = build_batch(rows, block_size, n_pages)
    pages = normal(n_pages, 2, n_kv_heads, block_size, 12).to(dtype)
    q = normal(batch.n_tokens, n_heads, 12, seed=1).to(dtype)
    seen = behind_windows(batch, window)
    spec = AttentionSpec(n_heads, n_kv_heads, 12, 0.3, softcap, window)
    attend = attention.PagedAttention(seen, spec, CPU, split_keys=split, block_n=16)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = reference.paged_attention(q, pages, batch, spec)
    torch.testing.assert_close(attend(q, pages), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("is_normed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rope_and_cache(is_normed: bool, dtype: torch.dtype) -> None:
    n, n_heads, n_kv_heads, head_dim, block_size = 5, 4, 2, 12, 4
    qkv = normal(n, n_heads + 2 * n_kv_heads, head_dim).to(dtype)
    inv_freq = 1.0 / 100 ** (torch.arange(0, head_dim, 2) / head_dim)
    cos, sin = reference.rotary_tables(torch.arange(3, 3 + n), inv_freq, 1.0)
    slots = torch.tensor([7, 30, -1, 0, 13])  # one that writes nothing
    norms = (normal(head_dim, seed=2).to(dtype), normal(head_dim, seed=3).to(dtype)) if is_normed else (None, None)
    pages, expected_pages = (torch.zeros(10, 2, n_kv_heads, block_size, head_dim, dtype=dtype) for _ in range(2))
    expected = reference.rope_and_cache(qkv, cos, sin, expected_pages, slots, *norms, 1e-6)
    q = cache_write.rope_and_cache(qkv, cos, sin, pages, slots, *norms, 1e-6)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(q, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(pages, expected_pages, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_and_activation(dtype: torch.dtype) -> None:
    x, residual, weight = normal(3, 24).to(dtype), normal(3, 24, seed=1).to(dtype), normal(24, seed=2).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
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


@pytest.mark.parametrize("vocab", [20, 64, 1500])
@pytest.mark.parametrize("is_masked", [False, True])
def test_sampling(vocab: int, is_masked: bool) -> None:
    n_rows = 6
    logits = normal(n_rows, vocab) * 2
    bits = torch.rand(n_rows, -(-vocab // 32) * 32, generator=torch.Generator().manual_seed(vocab)) < 0.3
    words = pack(bits) if is_masked else None
    temperatures = torch.tensor([0.0, 1.0, 0.3, 2.0, 1.0, 5.0])
    keep_from = torch.tensor([-math.inf, -math.inf, 0.0, -1.0, 1.0, -math.inf])
    keys = torch.randint(-(2**62), 2**62, (n_rows,), generator=torch.Generator().manual_seed(1))
    expected = reference.sample(logits, words, temperatures, keep_from, keys)
    assert sampling.sample(logits, words, temperatures, keep_from, keys).tolist() == expected.tolist()


def test_sampling_under_a_mask_narrower_than_the_vocabulary_and_under_one_choice() -> None:
    bits = torch.zeros(1, 32, dtype=torch.bool)
    bits[0, 31] = True  # the sign bit of the word
    logits = torch.zeros(1, 100)
    arguments = (pack(bits), torch.ones(1), torch.full((1,), -math.inf), torch.tensor([5]))
    assert sampling.sample(logits, *arguments).tolist() == [31]


def test_accepted_drafts() -> None:
    drafted = torch.tensor([5, 6, 7, 0, 0, 5, 6, 0, 9, 0])
    sampled = torch.tensor([5, 6, 1, 7, 4, 1, 6, 2, 9, 3])
    starts = torch.tensor([0, 4, 5, 8, 10])
    assert verify.accept_chain(drafted, sampled, starts).tolist() == [2, 0, 0, 1]
