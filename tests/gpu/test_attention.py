"""Paged attention on the GPU against its definition, in all forms that the engine launches."""

import dataclasses

import pytest
import torch

from kernels import AttentionSpec, RaggedBatch, attention, reference
from kernels.quantized_pages import page_rows, quantize, scales_of
from tests.gpu.machine import DEVICE, TOLERANCE, needs, pick, recorded
from tests.kernels.samples import behind_windows, build_batch, normal

Rows = list[tuple[int, int]]
DECODES: Rows = pick([(1, 1), (1, 700), (1, 33), (1, 4096), (1, 16)], [(1, 1), (1, 37), (1, 16)])
MIXED: Rows = pick([(300, 300), (65, 1000), (1, 513), (7, 7), (4, 2000)], [(7, 7), (5, 20), (1, 33)])
ONE_LONG: Rows = pick([(1, 20_000)], [(1, 150)])
HEADS = pick([(32, 8, 128), (14, 2, 64), (8, 4, 256), (9, 9, 96), (64, 1, 128)], [(4, 2, 16)])
FLAGS = {
    "plain": {},
    "window": {"window": pick(129, 9)},
    "softcap": {"softcap": 5.0},
    "alibi": {"alibi": True},
    "sinks": {"sinks": True},
    "window, softcap, sinks": {"window": pick(500, 7), "softcap": 20.0, "sinks": True},
}
FORMS = [
    *(("plain", size, False) for size in pick([16, 64, 128, 256], [4])),
    *((name, 32, False) for name in list(FLAGS)[1:]),
    ("plain", 16, True),
    ("window, softcap, sinks", 64, True),
]
"""Flags, tokens of a page, whether invariant: each is compiled, so not all of them with all."""


def build(
    rows: Rows, heads: tuple[int, int, int], block_size: int, dtype: torch.dtype, flags: dict[str, object]
) -> tuple[torch.Tensor, torch.Tensor, RaggedBatch, AttentionSpec, torch.Tensor | None]:
    """q, pages, batch, spec, sinks."""
    n_heads, n_kv_heads, head_dim = heads
    n_pages = sum(-(-context // block_size) + 1 for _, context in rows)
    batch = build_batch(rows, block_size, n_pages)
    slopes = tuple(2.0 ** (-8 * (head + 1) / n_heads) for head in range(n_heads))
    window, softcap = flags.get("window"), flags.get("softcap")
    spec = AttentionSpec(
        n_heads, n_kv_heads, head_dim, head_dim**-0.5, softcap, window, slopes if flags.get("alibi") else None
    )  # type: ignore[arg-type]
    pages = normal(n_pages, 2, n_kv_heads, block_size, head_dim).to(DEVICE, dtype)
    q = (normal(batch.n_tokens, n_heads, head_dim, seed=1) * 2).to(DEVICE, dtype)
    sinks = normal(n_heads, seed=2).to(DEVICE) if flags.get("sinks") else None
    return q, pages, batch, spec, sinks


def check(
    q: torch.Tensor,
    pages: torch.Tensor,
    batch: RaggedBatch,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
    **options: object,
) -> None:
    attend = attention.PagedAttention(behind_windows(batch, spec.window), spec, DEVICE, **options)  # type: ignore[arg-type]
    actual, expected = attend(q, pages, sinks), reference.paged_attention(q, pages, batch, spec, sinks)
    tolerance = TOLERANCE[q.dtype]
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("rows", [DECODES, MIXED, ONE_LONG], ids=["decodes", "mixed", "long"])
def test_every_shape_of_heads(rows: Rows, heads: tuple[int, int, int]) -> None:
    check(*build(rows, heads, 32, torch.bfloat16, {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("heads", HEADS[:3])
def test_every_dtype(heads: tuple[int, int, int], dtype: torch.dtype) -> None:
    for rows in (DECODES, MIXED):
        check(*build(rows, heads, 32, dtype, {}))


@pytest.mark.parametrize(("flags", "block_size", "is_invariant"), FORMS)
def test_every_flag_and_every_size_of_page(flags: str, block_size: int, is_invariant: bool) -> None:
    for rows in pick([DECODES, MIXED], [MIXED]):
        check(*build(rows, HEADS[0], block_size, torch.bfloat16, FLAGS[flags]), is_invariant=is_invariant)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("flags", ["plain", "window, softcap, sinks"])
def test_pages_in_8_bits(flags: str, dtype: torch.dtype) -> None:
    needs(dtype)
    wide_dtype = pick(torch.bfloat16, torch.float32)  # the interpreter widens int8 to other bfloat16 numbers
    q, wide, batch, spec, sinks = build(MIXED, HEADS[0], 32, wide_dtype, FLAGS[flags])
    shape = (*wide.shape[:3], page_rows(32, spec.head_dim, dtype), spec.head_dim)
    pages = torch.zeros(shape, dtype=torch.uint8, device=DEVICE).view(dtype)
    numbers, scales = quantize(wide, dtype)
    pages.view(torch.uint8)[:, :, :, :32] = numbers.view(torch.uint8)
    scales_of(pages, 32).copy_(scales)
    check(q, pages, batch, spec, sinks)


def test_trees() -> None:
    prompt = pick(900, 30)
    words = (1, 0b11, 0b101, 0b1011, 0b10101)
    rows = [(6, prompt), (1, 40), (5, 20)]
    q, pages, batch, spec, _ = build(rows, HEADS[0], 16, torch.bfloat16, {"window": pick(300, 9)})
    trees = tuple(words if n >= len(words) else () for n in batch.query_lens)
    batch = dataclasses.replace(batch, trees=trees)
    attend = attention.PagedAttention(batch, spec, DEVICE)
    expected = reference.paged_attention(q, pages, batch, spec)
    torch.testing.assert_close(attend(q, pages), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("n_queries", [1, 5])
def test_a_bucket_that_is_refilled_attends_to_the_newest_batch(n_queries: int) -> None:
    """Recorded as a graph on a GPU: it reads nothing but what the refill sent."""
    contexts = pick([[5000, 31, 700], [9], [64, 64, 64, 64], [1, 8000]], [[37, 9], [16, 5, 20]])
    heads, block_size = HEADS[0], 16
    spec = AttentionSpec(*heads, heads[2] ** -0.5)
    width = max(-(-(context + n_queries) // block_size) for each in contexts for context in each) + 1
    bucket = attention.PagedAttention.for_bucket(4, n_queries, width, block_size, spec, DEVICE)
    n_pages = max(sum(-(-(context + n_queries) // block_size) + 1 for context in each) for each in contexts)
    pages = normal(n_pages, 2, heads[1], block_size, heads[2]).to(DEVICE, torch.bfloat16)
    q = torch.zeros(4 * n_queries, *heads[::2], dtype=torch.bfloat16, device=DEVICE)
    out = torch.zeros_like(q)

    def work() -> None:
        out.copy_(bucket(q, pages))

    replay = recorded(work)
    for number, each in enumerate(contexts):
        batch = build_batch([(n_queries, context + n_queries) for context in each], block_size, n_pages)
        n = batch.n_tokens
        q[:n] = normal(n, *heads[::2], seed=number).to(DEVICE, torch.bfloat16)
        assert bucket.refill(batch)
        replay()
        expected = reference.paged_attention(q[:n], pages, batch, spec)
        torch.testing.assert_close(out[:n], expected, atol=2e-2, rtol=2e-2)
    longer = build_batch([(n_queries, (width + 1) * block_size)], block_size, width + 2)
    assert not bucket.refill(longer)


def test_an_invariant_row_is_the_same_bits_beside_any_others_and_however_it_is_cut() -> None:
    heads, context = HEADS[0], pick(900, 40)
    spec = AttentionSpec(*heads, heads[2] ** -0.5)
    table = tuple(range(3, 3 + -(-context // 16)))
    pages = normal(len(table) + 20, 2, heads[1], 16, heads[2]).to(DEVICE, torch.bfloat16)
    q = normal(context, *heads[::2]).to(DEVICE, torch.bfloat16)
    whole = RaggedBatch((context,), (context,), (table,), 16)
    expected = attention.PagedAttention(whole, spec, DEVICE, is_invariant=True)(q, pages)
    for first, last in ((context - 1, context), (context - 7, context - 2), (3, context)):
        n = last - first
        batch = RaggedBatch((1, n), (17, last), ((0, 1), table), 16)
        company = torch.cat((q[:1] + 1, q[first:last]))
        actual = attention.PagedAttention(batch, spec, DEVICE, is_invariant=True)(company, pages)
        assert torch.equal(actual[1:], expected[first:last])
