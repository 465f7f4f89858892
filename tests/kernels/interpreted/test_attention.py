"""Paged attention in the interpreter against its definition, and what holds beyond it: results do not depend on how
work was cut, nor, where that is promised, on the batch to the bit. Tiny shapes: the interpreter is slow."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime import interpreter

from kernels import AttentionSpec, RaggedBatch, attention, reference
from kernels.attention import PagedAttention
from kernels.quantized_pages import FORMATS, dequantize, page_rows, quantize, scales_of
from tests.kernels.samples import behind_windows, normal

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
TINY = {"split_keys": 32, "block_n": 16}


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch with tensors for it. Everything that no row of the batch holds is NaN, so that whoever reads it is found
    out; so is page 0, which stands in for pages that are gone."""

    spec: AttentionSpec
    batch: RaggedBatch
    q: torch.Tensor
    pages: torch.Tensor

    @classmethod
    def of(
        cls,
        spec: AttentionSpec,
        rows: list[tuple[int, int]],
        block_size: int = 4,
        dtype: torch.dtype = torch.float32,
        page_dtype: torch.dtype | None = None,
        trees: tuple[tuple[int, ...], ...] = (),
        seed: int = 0,
    ) -> "Case":
        """rows: queries and keys."""
        page_dtype = page_dtype or dtype
        counts = [-(-context // block_size) for _, context in rows]
        order = (torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)) + 1).tolist()
        tables = [tuple(order.pop() for _ in range(count)) for count in counts]
        batch = RaggedBatch(tuple(n for n, _ in rows), tuple(c for _, c in rows), tuple(tables), block_size, trees)
        is_held = torch.zeros(sum(counts) + 1, block_size, dtype=torch.bool)
        for (_, context), table in zip(rows, tables, strict=True):
            for index, page in enumerate(table):
                is_held[page, : context - index * block_size] = True
        values = normal(len(is_held), 2, spec.n_kv_heads, block_size, spec.head_dim, seed=seed)
        rows_of_page = page_rows(block_size, spec.head_dim, page_dtype)
        shape = (len(is_held), 2, spec.n_kv_heads, rows_of_page, spec.head_dim)
        if page_dtype in FORMATS:
            pages = torch.zeros(shape, dtype=torch.int8).view(page_dtype)
            elements, scales = quantize(values * 0.1, page_dtype)
            pages.view(torch.int8)[:, :, :, :block_size] = elements.view(torch.int8)
            scales_of(pages, block_size)[:] = scales.masked_fill(~is_held[:, None, None], torch.nan)
        else:
            pages = values.to(dtype).masked_fill(~is_held[:, None, None, :, None], torch.nan)
        return cls(spec, batch, normal(batch.n_tokens, spec.n_heads, spec.head_dim, seed=seed + 1).to(dtype), pages)

    def expected(self, sinks: torch.Tensor | None = None) -> torch.Tensor:
        return reference.paged_attention(self.q, self.pages, self.batch, self.spec, sinks)

    def attention(self, **knobs: Any) -> PagedAttention:
        return PagedAttention(behind_windows_of(self.batch, self.spec.window), self.spec, CPU, **knobs)

    def check(self, sinks: torch.Tensor | None = None, **knobs: Any) -> None:
        tolerance = TOLERANCE[self.q.dtype]
        actual = self.attention(**knobs)(self.q, self.pages, sinks)
        torch.testing.assert_close(actual, self.expected(sinks), atol=tolerance, rtol=tolerance)


def behind_windows_of(batch: RaggedBatch, window: int | None) -> RaggedBatch:
    return dataclasses.replace(behind_windows(batch, window), trees=batch.trees)


@st.composite
def specs(draw: st.DrawFn) -> AttentionSpec:
    n_kv_heads, group = draw(st.sampled_from([(1, 1), (2, 3), (1, 4), (2, 8), (1, 20)]))
    alibi = tuple(0.25 * (1 + head % 5) for head in range(n_kv_heads * group)) if draw(st.booleans()) else None
    return AttentionSpec(
        n_heads=n_kv_heads * group,
        n_kv_heads=n_kv_heads,
        head_dim=draw(st.sampled_from([12, 32, 80])),
        scale=0.3,
        softcap=draw(st.sampled_from([None, 0.5])),
        window=draw(st.sampled_from([None, 1, 5, 40, 100])),
        alibi=alibi,
    )


@st.composite
def rows_of_a_step(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Decodes, drafts to verify and chunks together, often at the edge of a page or of a range."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.sampled_from([1, 1, 2, 5, 17]))
        rows.append((n, n + draw(st.sampled_from([0, 1, 3, 15, 16, 31, 32, 50, 64]))))
    return rows


def sinks_of(spec: AttentionSpec) -> torch.Tensor:
    return normal(spec.n_heads, seed=7)


@given(
    spec=specs(),
    rows=rows_of_a_step(),
    block_size=st.sampled_from([4, 5, 16, 32]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    knobs=st.sampled_from([{}, TINY, {**TINY, "is_invariant": True}]),
    has_sinks=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_attention_equals_its_definition(
    spec: AttentionSpec,
    rows: list[tuple[int, int]],
    block_size: int,
    dtype: torch.dtype,
    knobs: dict[str, Any],
    has_sinks: bool,
) -> None:
    case = Case.of(spec, rows, block_size, dtype)
    case.check(sinks_of(spec) if has_sinks else None, **knobs)


@pytest.mark.parametrize("knobs", [{}, TINY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("page_dtype", FORMATS)
def test_attention_over_quantised_pages_equals_its_definition(
    page_dtype: torch.dtype, dtype: torch.dtype, knobs: dict[str, Any]
) -> None:
    spec = AttentionSpec(6, 2, 20, 1.0, window=30)
    Case.of(spec, [(1, 40), (7, 7), (3, 70)], 8, dtype, page_dtype).check(sinks_of(spec), **knobs)


def test_tiny_values_survive_float16_beside_quantised_pages() -> None:
    case = Case.of(AttentionSpec(2, 1, 32, 1.0), [(1, 60)], 8, torch.float16, torch.int8)
    scales_of(case.pages, 8)[:, 1] *= 1e-3
    expected = case.expected()
    assert expected.abs().max() < 1e-3
    torch.testing.assert_close(case.attention()(case.q, case.pages), expected, atol=1e-6, rtol=3e-2)


@st.composite
def trees(draw: st.DrawFn, most: int) -> tuple[int, ...]:
    """The words of a random draft tree; the first node is the root of the others, as the committed token is."""
    words = [1]
    for node in range(1, draw(st.integers(1, most))):
        words.append(words[draw(st.integers(0, node - 1))] | 1 << node)
    return tuple(words)


@given(data=st.data(), spec=specs(), knobs=st.sampled_from([{}, TINY, {**TINY, "is_invariant": True}]))
@settings(deadline=None, max_examples=25)
def test_attention_in_draft_trees_equals_its_definition(
    data: st.DataObject, spec: AttentionSpec, knobs: dict[str, Any]
) -> None:
    drafts, rows = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        tree = data.draw(st.just(()) | trees(10))
        n = max(1, len(tree)) + data.draw(st.sampled_from([0, 0, 3]))
        drafts.append(tree)
        rows.append((n, n + data.draw(st.sampled_from([0, 1, 20, 27, 60]))))
    Case.of(spec, rows, 8, trees=tuple(drafts)).check(sinks_of(spec), **knobs)


@pytest.mark.parametrize("window", [None, 70])
def test_a_tree_may_have_64_nodes(window: int | None) -> None:
    words = [1]
    for node in range(1, 64):
        words.append(words[max(0, node - 2)] | 1 << node)
    Case.of(AttentionSpec(2, 1, 16, 0.3, window=window), [(64, 100), (1, 9)], 16, trees=(tuple(words), ())).check()


@pytest.mark.parametrize("window", [None, 6])
def test_attention_of_a_node_is_attention_over_its_path(window: int | None) -> None:
    #        0          the tree's slots follow a context of 13 keys
    #      1   2
    #     3   4 5
    words = (0b1, 0b11, 0b101, 0b1011, 0b10101, 0b100101)
    before, block_size = 13, 4
    spec = AttentionSpec(4, 2, 12, 0.3, window=window, alibi=(0.5, 0.25, 0.1, 0.05))
    case = Case.of(spec, [(6, before + 6)], block_size, trees=(words,))
    found = case.attention()(case.q, case.pages)
    keys = dequantize(case.pages[list(case.batch.block_tables[0])], block_size).permute(1, 2, 0, 3, 4).flatten(2, 3)
    for node, word in enumerate(words):
        path = [*range(before), *(before + other for other in range(6) if word >> other & 1)]
        n_pages = -(-len(path) // block_size)
        pages = torch.full((n_pages, *case.pages.shape[1:]), torch.nan)
        for slot, key in enumerate(path):
            pages[slot // block_size, :, :, slot % block_size] = keys[:, :, key]
        chain = RaggedBatch((1,), (len(path),), (tuple(range(n_pages)),), block_size)
        alone = PagedAttention(chain, spec, CPU)(case.q[node : node + 1], pages)
        torch.testing.assert_close(found[node : node + 1], alone, atol=1e-5, rtol=1e-5)


def test_partial_results_that_one_launch_has_no_room_for_are_written_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = AttentionSpec(2, 1, 12, 0.3)
    monkeypatch.setattr(attention, "PARTIAL_BYTES", 7 * 2 * 13 * 4)
    case = Case.of(spec, [(1, 200), (1, 70), (1, 30), (1, 130)])
    assert len(case.attention(**TINY)._launches) > 1
    case.check(**TINY)


@pytest.fixture
def independent_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every row of a product be computed alike, as tensor cores do: a CPU's BLAS goes by where the row lies."""
    original = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        with monkeypatch.context() as context:
            context.setattr(np, "matmul", lambda a, b, dtype: (a[:, :, None] * b).sum(1, dtype=dtype))
            return original(self, a, b, d, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.usefixtures("independent_rows")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "context", "window", "split_keys", "cuts"),
    [
        # The first queries have one range of keys if their chunk ends with them, else two, of which they see one.
        (40, 41, None, 16, [[12, 28], [1, 38, 1]]),
        # Ranges and tiles that the window hides from some of the queries that share a block.
        (30, 80, 40, 32, [[13, 17], [1, 28, 1]]),
    ],
)
def test_invariant_attention_gives_a_query_the_same_bits_in_any_batch(
    n: int, context: int, window: int | None, split_keys: int, cuts: list[list[int]], dtype: torch.dtype
) -> None:
    spec = AttentionSpec(6, 2, 16, 0.3, window=window)
    sinks = sinks_of(spec)
    block_size = 8
    whole = Case.of(spec, [(n, context)], block_size, dtype)
    knobs: dict[str, Any] = {"split_keys": split_keys, "block_n": 16, "is_invariant": True}
    expected = whole.attention(**knobs)(whole.q, whole.pages, sinks)
    torch.testing.assert_close(expected, whole.expected(sinks), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    for counts in [[n], *cuts]:
        done = 0
        for count in counts:
            done += count
            # In company, and in other pages.
            company = Case.of(spec, [(3, 30), (count, context - n + done), (1, 20)], block_size, dtype, seed=done)
            table = company.batch.block_tables[1]
            pages, q = company.pages.clone(), company.q.clone()
            pages[list(table)] = whole.pages[list(whole.batch.block_tables[0][: len(table)])]
            q[3 : 3 + count] = whole.q[done - count : done]
            seen = behind_windows(company.batch, window)
            found = PagedAttention(seen, spec, CPU, **knobs)(q, pages, sinks)[3 : 3 + count]
            assert torch.equal(found, expected[done - count : done])


def bucket(spec: AttentionSpec, n_rows: int, n_queries: int, **knobs: Any) -> PagedAttention:
    return PagedAttention.for_bucket(n_rows, n_queries, 20, 4, spec, CPU, **knobs)


@pytest.mark.parametrize(
    "knobs", [{}, {"split_keys": 16, "block_n": 16}, {"split_keys": 16, "block_n": 16, "is_invariant": True}]
)
def test_a_bucket_attends_to_one_batch_after_another(knobs: dict[str, Any]) -> None:
    spec = AttentionSpec(4, 2, 12, 0.3, window=30)
    attend = bucket(spec, 3, 2, **knobs)
    attend(normal(6, 4, 12), torch.full((2, 2, 2, 4, 12), torch.nan))  # nothing to do yet
    for rows in ([(2, 70), (2, 9), (2, 2)], [(2, 50)], [(2, 9), (2, 61)]):
        case = Case.of(spec, rows)
        assert attend.refill(behind_windows(case.batch, spec.window))
        n = case.batch.n_tokens
        found = attend(torch.cat((case.q, torch.full((6 - n, 4, 12), torch.nan))), case.pages, sinks_of(spec))
        torch.testing.assert_close(found[:n], case.expected(sinks_of(spec)), atol=1e-5, rtol=1e-5)


def test_a_bucket_for_trees_takes_chains_as_well() -> None:
    spec = AttentionSpec(4, 2, 12, 0.3, alibi=(0.5, 0.25, 0.1, 0.05))
    attend = bucket(spec, 3, 3, has_trees=True)
    for drafts in (((1, 3, 5), (), (1, 3)), ()):
        case = Case.of(spec, [(3, 20), (3, 8), (3, 3)], trees=drafts)
        assert attend.refill(case.batch)
        torch.testing.assert_close(attend(case.q, case.pages), case.expected(), atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_a_bucket_changes_nothing() -> None:
    spec = AttentionSpec(4, 2, 12, 0.3)
    attend = bucket(spec, 2, 2)
    case = Case.of(spec, [(2, 20), (2, 9)])
    assert attend.refill(case.batch)
    for rows in ([(2, 5)] * 3, [(2, 5), (1, 5)], [(2, 81)]):
        assert not attend.refill(Case.of(spec, rows).batch)
    assert not attend.refill(Case.of(spec, [(2, 9)], trees=((1, 3),)).batch)
    torch.testing.assert_close(attend(case.q, case.pages), case.expected(), atol=1e-5, rtol=1e-5)


def test_an_invariant_bucket_refuses_more_ranges_than_a_graph_should_launch() -> None:
    spec = AttentionSpec(1, 1, 12, 0.3)
    attend = PagedAttention.for_bucket(1, 1, 600, 4, spec, CPU, split_keys=2, block_n=2)
    table = tuple(range(600))
    assert attend.refill(RaggedBatch((1,), (2050,), (table,), 4))
    assert not attend.refill(RaggedBatch((1,), (2400,), (table,), 4))


def test_misuse_is_refused_with_what_is_wrong() -> None:
    spec = AttentionSpec(4, 2, 12, 0.3)
    case = Case.of(spec, [(2, 9)])

    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=match):
            PagedAttention(case.batch, dataclasses.replace(spec, **changes), CPU)

    refused("4 query heads do not divide among 3 KV heads", n_kv_heads=3)
    refused("257 dimensions: at most 256", head_dim=257)
    refused("129 query heads share a KV head: at most 128", n_heads=129, n_kv_heads=1)
    refused("scale is -1", scale=-1.0)
    refused("3 ALiBi slopes", alibi=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="draft tree of 3 nodes and 2 queries"):
        PagedAttention(dataclasses.replace(case.batch, trees=((1, 3, 7),)), spec, CPU)
    with pytest.raises(ValueError, match="split_keys is 100: a multiple of 128"):
        PagedAttention(case.batch, spec, CPU, split_keys=100)
    attend = case.attention()
    with pytest.raises(ValueError, match="make one for_bucket"):
        attend.refill(case.batch)
    with pytest.raises(ValueError, match=r"q is \[1, 4, 12\]: \[2, 4, 12\]"):
        attend(case.q[:1], case.pages)
    with pytest.raises(ValueError, match=r"q is torch.float64"):
        attend(case.q.double(), case.pages.double())
    with pytest.raises(ValueError, match=r"pages are torch.float8_e5m2"):
        attend(case.q, case.pages.to(torch.float8_e5m2))
    with pytest.raises(ValueError, match=r"pages are torch.float16: they are torch.float32"):
        attend(case.q, case.pages.half())
    with pytest.raises(ValueError, match=r"pages are \[4, 2, 2, 3, 12\]"):
        attend(case.q, case.pages[:, :, :, :3])
    with pytest.raises(ValueError, match=r"sinks are torch.float32 \[3\]"):
        attend(case.q, case.pages, torch.zeros(3))
    with pytest.raises(ValueError, match="pages of 8 tokens: the bucket's have 4"):
        bucket(spec, 1, 1).refill(RaggedBatch((1,), (1,), ((0,),), 8))
