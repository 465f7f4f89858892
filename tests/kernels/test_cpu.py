"""The fast CPU forms against the plain definitions in reference.py."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import AttentionSpec, RaggedBatch, cpu, kernels_for, reference, reference_verify
from kernels.invariant import InvariantAttention
from kernels.kernel_set import AttentionStep
from tests.kernels.samples import attend_along, behind_windows, build_batch, build_tree_batch, normal
from tests.kernels.trees import MAX_NODES, Drafts, forests, rows_with_trees, trees

rows_of_batch = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=6,
) | st.lists(st.tuples(st.just(1), st.integers(1, 90)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(
    rows=rows_of_batch,
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3)]),
    block_size=st.sampled_from([1, 4, 16]),
    window=st.sampled_from([None, 1, 7, 64]),
    softcap=st.sampled_from([None, 0.4, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_paged_attention_equals_its_definition(
    rows: list[tuple[int, int]],
    heads: tuple[int, int],
    block_size: int,
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    n_heads, n_kv_heads = heads
    n_pages = sum(-(-context // block_size) + 1 for _, context in rows)
    batch = build_batch(rows, block_size, n_pages)
    pages = normal(n_pages, 2, n_kv_heads, block_size, 8).to(dtype)
    q = normal(batch.n_tokens, n_heads, 8, seed=1).to(dtype)
    seen = behind_windows(batch, window)
    spec = AttentionSpec(n_heads, n_kv_heads, 8, 0.3, softcap, window)
    attention = cpu.PagedAttention(seen, spec, torch.device("cpu"))
    expected = reference.paged_attention(q, pages, batch, spec)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for _ in range(2):  # the second layer reuses what was prepared for the first
        torch.testing.assert_close(attention(q, pages), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("form", [cpu.PagedAttention, InvariantAttention])
@settings(max_examples=60)
@given(
    rows=rows_with_trees(40),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    block_size=st.sampled_from([1, 4, 16]),
    window=st.sampled_from([None, 1, 3, 7, 64]),
    softcap=st.sampled_from([None, 0.4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_attention_in_draft_trees_equals_its_definition(
    form: Callable[..., AttentionStep],
    rows: list[tuple[int, int, tuple[int, ...]]],
    heads: tuple[int, int],
    block_size: int,
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    n_heads, n_kv_heads = heads
    n_pages = sum(-(-(before + n + len(parents)) // block_size) + 1 for before, n, parents in rows)
    batch = build_tree_batch(rows, block_size, n_pages)
    pages = normal(n_pages, 2, n_kv_heads, block_size, 8).to(dtype)
    q = normal(batch.n_tokens, n_heads, 8, seed=1).to(dtype)
    spec = AttentionSpec(n_heads, n_kv_heads, 8, 0.3, softcap, window)
    attention = form(batch, spec, torch.device("cpu"))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    expected = reference.paged_attention(q, pages, batch, spec)
    torch.testing.assert_close(attention(q, pages), expected, atol=tolerance, rtol=tolerance)


@settings(max_examples=40)
@given(
    before=st.integers(0, 40),
    n=st.integers(0, 3),
    parents=trees,
    block_size=st.sampled_from([1, 3, 16]),
    window=st.sampled_from([None, 1, 2, 5, 33]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_a_node_attends_to_the_bits_of_its_path_as_a_chain(
    before: int,
    n: int,
    parents: tuple[int, ...],
    block_size: int,
    window: int | None,
    dtype: torch.dtype,
    data: st.DataObject,
) -> None:
    node = data.draw(st.integers(0, len(parents) - 1))
    in_tree, alone = attend_along(InvariantAttention, before, n, parents, node, block_size, window, dtype)
    assert torch.equal(in_tree, alone)


def test_attention_is_the_softmax_weighted_mean_of_the_values_seen() -> None:
    """The definition itself, on a case small enough to do by hand: two keys, one of them outside the window."""
    pages = torch.zeros(1, 2, 1, 2, 2)
    pages[0, 0, 0] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # keys
    pages[0, 1, 0] = torch.tensor([[10.0, 0.0], [0.0, 20.0]])  # values
    q = torch.tensor([[[math.log(3.0), 0.0]]])
    batch = RaggedBatch((1,), (2,), ((0,),), 2)

    def attend(softcap: float | None = None, window: int | None = None) -> torch.Tensor:
        return reference.paged_attention(q, pages, batch, AttentionSpec(1, 1, 2, 1.0, softcap, window))

    torch.testing.assert_close(attend(), torch.tensor([[[7.5, 5.0]]]))
    torch.testing.assert_close(attend(window=1), torch.tensor([[[0.0, 20.0]]]))
    capped = math.exp(0.5 * math.tanh(2 * math.log(3.0)))  # the first key weighs this under a cap of 0.5, the second 1
    expected = torch.tensor([[[10.0 * capped / (capped + 1), 20.0 / (capped + 1)]]])
    torch.testing.assert_close(attend(0.5), expected)


@given(n=st.integers(1, 9), is_normed=st.booleans(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_rope_and_cache_equals_its_definition(n: int, is_normed: bool, dtype: torch.dtype) -> None:
    n_heads, n_kv_heads, head_dim, block_size = 4, 2, 8, 4
    qkv = normal(n, n_heads + 2 * n_kv_heads, head_dim).to(dtype)
    positions = torch.arange(5, 5 + n)
    cos, sin = reference.rotary_tables(positions, 1.0 / 100 ** (torch.arange(0, head_dim, 2) / head_dim), 1.0)
    slots = torch.randperm(40, generator=torch.Generator().manual_seed(n))[:n]
    norms = (normal(head_dim, seed=2).to(dtype), normal(head_dim, seed=3).to(dtype)) if is_normed else (None, None)
    pages, expected_pages = (torch.zeros(10, 2, n_kv_heads, block_size, head_dim, dtype=dtype) for _ in range(2))
    expected = reference.rope_and_cache(qkv, cos, sin, expected_pages, slots, *norms, 1e-6)
    prepared = cpu.write_index(slots, n_kv_heads, block_size)
    q = cpu.rope_and_cache(qkv, cos, sin, pages, prepared, *norms, 1e-6)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(q, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(pages, expected_pages, atol=tolerance, rtol=tolerance)


def test_rotation_turns_pairs_and_depends_on_distances_only() -> None:
    inv_freq = torch.tensor([1.0, 0.1])
    cos, sin = reference.rotary_tables(torch.arange(20), inv_freq, 1.0)
    x = normal(1, 1, 4).expand(20, 1, 4)
    turned = reference.rotate(x, cos, sin)[:, 0]
    complex_x = torch.complex(x[0, 0, :2].double(), x[0, 0, 2:].double())
    expected = complex_x * torch.exp(1j * torch.arange(20)[:, None] * inv_freq.double())
    torch.testing.assert_close(turned.double(), torch.cat((expected.real, expected.imag), -1), atol=1e-5, rtol=1e-5)
    products = turned @ turned.T
    torch.testing.assert_close(products[3, 7], products[11, 15])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_equal_their_definition(dtype: torch.dtype) -> None:
    x, residual, weight = normal(5, 32).to(dtype), normal(5, 32, seed=1).to(dtype), normal(32, seed=2).to(dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(
        cpu.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5), atol=tolerance, rtol=tolerance
    )
    for fast, plain in zip(
        cpu.add_rms_norm(x, residual, weight, 1e-5), reference.add_rms_norm(x, residual, weight, 1e-5), strict=True
    ):
        torch.testing.assert_close(fast, plain, atol=tolerance, rtol=tolerance)


def test_a_device_without_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="meta"):
        kernels_for(torch.device("meta"))


def test_what_these_kernels_do_not_attend_to_is_refused() -> None:
    batch, spec = RaggedBatch((2,), (5,), ((0, 1),), 4), AttentionSpec(1, 1, 8, 1.0)
    with pytest.raises(ValueError, match="ALiBi"):
        cpu.PagedAttention(batch, replace(spec, alibi=(0.5,)), torch.device("cpu"))
    with pytest.raises(ValueError, match="tree of 3 nodes and 2 queries"):
        cpu.PagedAttention(replace(batch, trees=((1, 3, 5),)), spec, torch.device("cpu"))


@settings(max_examples=60)
@given(forest=forests, seed=st.integers(0, 999), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_accepted_branches_move_as_their_definition_says(
    forest: list[tuple[int, ...]], seed: int, dtype: torch.dtype
) -> None:
    block_size, heads, n_pages = 4, 2, 10
    drafts, generator = Drafts.build(forest, seed), torch.Generator().manual_seed(seed)
    n = len(drafts.tokens)
    slots = torch.randperm(n_pages * block_size, generator=generator)[:n]
    slots[torch.rand(n, generator=generator) < 0.1] = -1
    expected = normal(n_pages, 2, heads, block_size, 8, seed=seed).to(dtype)
    actual = expected.clone()
    accepted, path = reference_verify.accept_coupled(*drafts.for_coupled, MAX_NODES)
    reference_verify.move_kv(expected, slots, path, drafts.starts, accepted)
    cpu.move_kv(actual, slots, path, drafts.starts, accepted)
    assert torch.equal(actual, expected)
