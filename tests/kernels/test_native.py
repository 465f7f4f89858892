"""The C kernels against the plain definitions, and their promise: a row's bits do not depend on the batch."""

import functools
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import AttentionSpec, RaggedBatch, reference
from kernels.native.build import BuildFailed, check_cpu, find_library
from kernels.native.kernels import NativeAttention
from kernels.native.library import NativeLibrary
from tests.kernels.samples import attend_along, behind_windows, build_batch, build_tree_batch, normal, pack
from tests.kernels.test_cpu import rows_of_batch
from tests.kernels.trees import rows_with_trees, trees


def can_run() -> bool:
    """Whether this CPU has what the kernels are compiled for."""
    try:
        check_cpu()
    except BuildFailed:
        return False
    return True


LIBRARY = find_library()
pytestmark = pytest.mark.skipif(not can_run() or shutil.which("cc") is None, reason="no C compiler, or no AVX-512 here")

dtypes = st.sampled_from([torch.float32, torch.bfloat16])
CPU = torch.device("cpu")


def native(dtype: torch.dtype) -> NativeLibrary:
    assert LIBRARY is not None
    return NativeLibrary(LIBRARY, dtype)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}


@settings(max_examples=80)
@given(
    n=st.integers(1, 140),
    n_in=st.integers(1, 200) | st.sampled_from([256, 512]),
    n_out=st.integers(1, 80),
    has_bias=st.booleans(),
    dtype=dtypes,
)
def test_a_linear_equals_its_definition(n: int, n_in: int, n_out: int, has_bias: bool, dtype: torch.dtype) -> None:
    x, weight = normal(n, n_in).to(dtype), (normal(n_out, n_in, seed=1) / n_in**0.5).to(dtype)
    bias = normal(n_out, seed=2) if has_bias else None
    expected = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    actual = native(dtype).linear(x, weight, bias)
    torch.testing.assert_close(actual.double(), expected, **tolerance(dtype))


@settings(max_examples=60)
@given(
    n=st.integers(1, 300),
    n_in=st.sampled_from([1, 31, 64, 300, 5000]),
    n_out=st.sampled_from([1, 30, 70]),
    data=st.data(),
    dtype=dtypes,
)
def test_a_row_of_a_linear_is_the_same_bits_in_any_batch(
    n: int, n_in: int, n_out: int, data: st.DataObject, dtype: torch.dtype
) -> None:
    library = native(dtype)
    x, weight = normal(n, n_in).to(dtype), normal(n_out, n_in, seed=1).to(dtype)
    whole = library.linear(x, weight, None)
    first = data.draw(st.integers(0, n - 1))
    last = data.draw(st.integers(first + 1, n))
    assert torch.equal(library.linear(x[first:last].contiguous(), weight, None), whole[first:last])


@settings(max_examples=80)
@given(
    rows=rows_of_batch,
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (3, 3), (40, 2)]),
    head_dim=st.sampled_from([8, 32, 64, 72, 128]),
    block_size=st.sampled_from([1, 4, 16, 32]),
    window=st.sampled_from([None, 1, 7, 64]),
    softcap=st.sampled_from([None, 0.4, 30.0]),
    dtype=dtypes,
)
def test_paged_attention_equals_its_definition(
    rows: list[tuple[int, int]],
    heads: tuple[int, int],
    head_dim: int,
    block_size: int,
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    n_heads, n_kv_heads = heads
    n_pages = sum(-(-context // block_size) + 1 for _, context in rows)
    batch = build_batch(rows, block_size, n_pages)
    pages = normal(n_pages, 2, n_kv_heads, block_size, head_dim).to(dtype)
    q = normal(batch.n_tokens, n_heads, head_dim, seed=1).to(dtype)
    seen = behind_windows(batch, window)
    spec = AttentionSpec(n_heads, n_kv_heads, q.shape[-1], 0.3, softcap, window)
    attention = NativeAttention(native(dtype), seen, spec, CPU)
    expected = reference.paged_attention(q, pages, batch, spec)
    torch.testing.assert_close(attention(q, pages), expected, **tolerance(dtype))


@settings(max_examples=40)
@given(
    context=st.integers(1, 150),
    alone=st.integers(1, 40),
    window=st.sampled_from([None, 5, 33]),
    dtype=dtypes,
    data=st.data(),
)
def test_a_query_attends_to_the_same_bits_in_any_chunk_batch_and_page_size(
    context: int, alone: int, window: int | None, dtype: torch.dtype, data: st.DataObject
) -> None:
    n_kv_heads, head_dim, alone = 2, 16, min(alone, context)
    keys_values = normal(2, n_kv_heads, context, head_dim).to(dtype)
    q = normal(context, 6, head_dim, seed=1).to(dtype)

    def attend(n: int, block_size: int, before: int) -> torch.Tensor:
        """The last n queries, in a batch behind `before` rows of one token."""
        n_pages = -(-context // block_size)
        pages = torch.zeros(n_pages + 1, 2, n_kv_heads, block_size, head_dim, dtype=dtype)
        table = torch.randperm(n_pages, generator=torch.Generator().manual_seed(block_size)) + 1
        for position in range(context):
            pages[table[position // block_size], :, :, position % block_size] = keys_values[:, :, position]
        batch = RaggedBatch(
            (1,) * before + (n,), (1,) * before + (context,), ((0,),) * before + (tuple(table.tolist()),), block_size
        )
        queries = torch.cat((torch.zeros(before, 6, head_dim, dtype=dtype), q[context - n :]))
        spec = AttentionSpec(6, n_kv_heads, head_dim, 0.3, window=window)
        return NativeAttention(native(dtype), batch, spec, CPU)(queries, pages)[before:]

    whole = attend(context, 16, 0)
    part = attend(alone, data.draw(st.sampled_from([1, 3, 8, 32])), data.draw(st.integers(0, 3)))
    assert torch.equal(part, whole[context - alone :])


@settings(max_examples=100)
@given(
    rows=rows_with_trees(60),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1), (40, 2)]),
    head_dim=st.sampled_from([8, 20, 64]),
    block_size=st.sampled_from([1, 4, 16, 32]),
    window=st.sampled_from([None, 1, 3, 7, 64]),
    softcap=st.sampled_from([None, 0.4]),
    dtype=dtypes,
)
def test_attention_in_draft_trees_equals_its_definition(
    rows: list[tuple[int, int, tuple[int, ...]]],
    heads: tuple[int, int],
    head_dim: int,
    block_size: int,
    window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    n_heads, n_kv_heads = heads
    n_pages = sum(-(-(before + n + len(parents)) // block_size) + 1 for before, n, parents in rows)
    batch = build_tree_batch(rows, block_size, n_pages)
    pages = normal(n_pages, 2, n_kv_heads, block_size, head_dim).to(dtype)
    q = normal(batch.n_tokens, n_heads, head_dim, seed=1).to(dtype)
    spec = AttentionSpec(n_heads, n_kv_heads, head_dim, 0.3, softcap, window)
    attention = NativeAttention(native(dtype), batch, spec, CPU)
    expected = reference.paged_attention(q, pages, batch, spec)
    torch.testing.assert_close(attention(q, pages), expected, **tolerance(dtype))


@settings(max_examples=100)
@given(
    before=st.integers(0, 200),
    n=st.integers(0, 5),
    parents=trees,
    block_size=st.sampled_from([1, 3, 16, 32]),
    window=st.sampled_from([None, 1, 2, 5, 33]),
    dtype=dtypes,
    data=st.data(),
)
def test_a_node_attends_to_the_bits_of_its_path_as_a_chain(
    before: int, n: int, parents: tuple[int, ...], block_size: int, window: int | None, dtype: torch.dtype,
    data: st.DataObject,
) -> None:  # fmt: skip
    node = data.draw(st.integers(0, len(parents) - 1))
    prepare = functools.partial(NativeAttention, native(dtype))
    in_tree, alone = attend_along(prepare, before, n, parents, node, block_size, window, dtype)
    assert torch.equal(in_tree, alone)


@given(n=st.integers(1, 70), is_normed=st.booleans(), head_dim=st.sampled_from([8, 20, 64]), dtype=dtypes)
def test_rope_and_cache_equals_its_definition(n: int, is_normed: bool, head_dim: int, dtype: torch.dtype) -> None:
    n_heads, n_kv_heads, block_size = 4, 2, 4
    qkv = normal(n, n_heads + 2 * n_kv_heads, head_dim).to(dtype)
    cos, sin = reference.rotary_tables(
        torch.arange(5, 5 + n), 1.0 / 100 ** (torch.arange(0, head_dim, 2) / head_dim), 1.0
    )
    slots = torch.randperm(80, generator=torch.Generator().manual_seed(n))[:n]
    slots[n // 2] = -1
    norms = (normal(head_dim, seed=2).to(dtype), normal(head_dim, seed=3).to(dtype)) if is_normed else (None, None)
    pages, expected_pages = (torch.zeros(20, 2, n_kv_heads, block_size, head_dim, dtype=dtype) for _ in range(2))
    expected = reference.rope_and_cache(qkv, cos, sin, expected_pages, slots, *norms, 1e-6)
    q = native(dtype).rope_and_cache(qkv, cos, sin, pages, slots, *norms, 1e-6)
    torch.testing.assert_close(q, expected, **tolerance(dtype))
    torch.testing.assert_close(pages, expected_pages, **tolerance(dtype))


@given(n=st.integers(1, 9), width=st.integers(1, 100), dtype=dtypes)
def test_norms_and_gates_equal_their_definition(n: int, width: int, dtype: torch.dtype) -> None:
    x, residual, weight = (
        normal(*shape, seed=i).to(dtype) for i, shape in enumerate([(n, width), (n, width), (width,)])
    )
    library = native(dtype)
    torch.testing.assert_close(
        library.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5), **tolerance(dtype)
    )
    for fast, plain in zip(
        library.add_rms_norm(x, residual, weight, 1e-5), reference.add_rms_norm(x, residual, weight, 1e-5), strict=True
    ):
        torch.testing.assert_close(fast, plain, **tolerance(dtype))
    gate_up = torch.cat((x * 8, residual), 1)  # large gates: both tails of the exponential
    for name in ("silu_and_mul", "gelu_tanh_and_mul"):
        fast, plain = getattr(library, name)(gate_up), getattr(reference, name)(gate_up)
        torch.testing.assert_close(fast, plain, **tolerance(dtype))


def test_a_head_that_the_kernel_has_no_room_for_is_refused() -> None:
    qkv, table = torch.zeros(1, 3, 1026), torch.zeros(1, 1026)
    pages, slots = torch.zeros(1, 2, 1, 4, 1026), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="head_dim is 1026"):
        native(torch.float32).rope_and_cache(qkv, table, table, pages, slots, None, None, 1e-6)


@given(
    vocab=st.integers(1, 200) | st.sampled_from([2048, 40_000]),
    n_words=st.integers(1, 8) | st.none(),
    n_rows=st.integers(1, 6),
    n_masks=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_masks_rule_out_what_their_bits_do_not_allow(
    vocab: int, n_words: int | None, n_rows: int, n_masks: int, density: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    width = -(-vocab // 32) if n_words is None else n_words  # narrower than the vocabulary, or wider
    masks = pack(torch.rand(n_masks, 32 * width, generator=generator) < density)
    mask_of = torch.randint(-1, n_masks, (n_rows,), generator=generator, dtype=torch.int32)
    logits = torch.randn(n_rows, vocab, generator=generator)
    is_allowed = reference.unpack_mask(masks, vocab)[mask_of.long()]
    is_allowed[mask_of < 0] = True
    expected = logits.masked_fill(~is_allowed, float("-inf"))
    guard = torch.full((n_rows + 1, vocab), 7.0)
    found = guard[:n_rows].copy_(logits)
    n_allowed = native(torch.float32).mask_logits(found, masks, mask_of)
    assert torch.equal(found, expected)
    assert torch.equal(n_allowed, is_allowed.sum(-1, dtype=torch.int32))
    assert guard[n_rows].eq(7.0).all()
