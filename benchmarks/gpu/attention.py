"""Sections `attention-decode` and `attention-prefill`: the paged kernel, with the heads of Llama 3 8B."""

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.bench import Bench, per_second, scaled
from benchmarks.timing import Spread
from kernels import AttentionSpec, RaggedBatch

__all__ = ["decode_attention", "prefill_attention"]

HEADS, TOY_HEADS = (32, 8, 128), (4, 2, 16)
BLOCK_SIZE = 32
BATCHES, CONTEXTS = (32, 1, 8, 64, 128, 256), (4096, 512, 2048, 8192, 16_384, 32_768)
MOST_BYTES = 40 * 2**30
"""Of keys and values in one case."""
CHUNKS, PRIORS = (8192, 4096, 2048, 1024, 512), (0, 8192)


def decode_attention(bench: Bench) -> None:
    """One query per row: the share of the copy bandwidth at which keys and values are read."""
    for context in bench.pick(CONTEXTS, (40, 70)):
        for batch in bench.pick(BATCHES, (2,)):
            if not bench.has_time(f"{batch} x {context}"):
                return
            _decode(bench, batch, context)
            bench.free()


def _decode(bench: Bench, batch: int, context: int) -> None:
    n_heads, n_kv_heads, head_dim = heads = bench.pick(HEADS, TOY_HEADS)
    n_numbers = 2 * batch * context * n_kv_heads * head_dim
    kv_bytes = n_numbers * bench.dtype.itemsize
    if kv_bytes > MOST_BYTES:
        bench.leave_out(f"{batch} x {context}: {kv_bytes / 2**30:.0f} GiB of keys and values")
        return
    n_buffers = bench.n_buffers(kv_bytes)
    pages, attend = _paged(bench, [(1, context)] * batch, heads, n_buffers)
    q = bench.random(n_buffers, batch, n_heads, head_dim)
    # The same memory, read as keys and values without pages.
    kv = pages.view(n_buffers, -1)[:, :n_numbers].view(n_buffers, 2, batch, n_kv_heads, context, head_dim)
    ours = bench.seconds_of(lambda i: attend(q[i], pages[i]), n_buffers)
    theirs = bench.seconds_of(
        lambda i: scaled_dot_product_attention(q[i][:, :, None], kv[i, 0], kv[i, 1], enable_gqa=True), n_buffers
    )
    moved = kv_bytes + 2 * q[0].nbytes
    bench.add(
        f"{batch} x {context}",
        scaled(per_second(moved, ours), 1e-9),
        "GB/s",
        of_copy=moved / ours.median / bench.copy_bytes_per_s,
        over_torch=theirs.median / ours.median,
        us=1e6 * ours.median,
    )


def prefill_attention(bench: Bench) -> None:
    """Chunks of one prompt, with and without tokens before them, beside torch's FlashAttention on contiguous keys."""
    for prior in bench.pick(PRIORS, (0, 12)):
        for chunk in bench.pick(CHUNKS, (20,)):
            if not bench.has_time(f"{chunk} after {prior}"):
                return
            _prefill(bench, chunk, prior)
            bench.free()


def _prefill(bench: Bench, chunk: int, prior: int) -> None:
    n_heads, n_kv_heads, head_dim = heads = bench.pick(HEADS, TOY_HEADS)
    context = prior + chunk
    pages, attend = _paged(bench, [(chunk, context)], heads, 2)
    q = bench.random(2, chunk, n_heads, head_dim)
    kv = pages.view(2, -1)[:, : 2 * context * n_kv_heads * head_dim].view(2, 2, 1, n_kv_heads, context, head_dim)
    ours = bench.seconds_of(lambda i: attend(q[i], pages[i]), 2)
    theirs = _flash(bench, q.transpose(1, 2)[:, None], kv, prior)
    flops = 4e-12 * n_heads * head_dim * (chunk * prior + chunk * (chunk + 1) / 2)
    beside = {} if theirs is None else {"over_torch": theirs.median / ours.median}
    bench.add(f"{chunk} after {prior}", per_second(flops, ours), "TFLOP/s", **beside, us=1e6 * ours.median)


def _flash(bench: Bench, q: torch.Tensor, kv: torch.Tensor, prior: int) -> Spread | None:
    """q [buffers, 1, heads, chunk, d], kv [buffers, 2, 1, kv_heads, context, d]."""
    bias = causal_lower_right(q.shape[-2], kv.shape[-2])

    def work(i: int) -> torch.Tensor:
        if prior:
            return scaled_dot_product_attention(q[i], kv[i, 0], kv[i, 1], attn_mask=bias, enable_gqa=True)
        return scaled_dot_product_attention(q[i], kv[i, 0], kv[i, 1], is_causal=True, enable_gqa=True)

    backend = SDPBackend.FLASH_ATTENTION if bench.is_cuda else SDPBackend.MATH
    try:
        with sdpa_kernel(backend):
            return bench.seconds_of(work, 2)
    except RuntimeError as error:
        bench.leave_out(f"torch's attention of {q.shape[-2]} after {prior}: {str(error).splitlines()[0]}")
        return None


def _paged(
    bench: Bench, rows: list[tuple[int, int]], heads: tuple[int, int, int], n_buffers: int
) -> tuple[torch.Tensor, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Pages [n_buffers, page, 2, kv_head, token, head_dim] that rows of (queries, context) fill in no order, and
    attention over them."""
    n_heads, n_kv_heads, head_dim = heads
    n_pages = [-(-context // BLOCK_SIZE) for _, context in rows]
    order = iter(torch.randperm(sum(n_pages), generator=torch.Generator().manual_seed(0)).tolist())
    tables = tuple(tuple(next(order) for _ in range(n)) for n in n_pages)
    batch = RaggedBatch(tuple(n for n, _ in rows), tuple(context for _, context in rows), tables, BLOCK_SIZE)
    spec = AttentionSpec(n_heads, n_kv_heads, head_dim, head_dim**-0.5)
    attend = bench.platform.kernels(bench.dtype, False).prepare_attention(batch, spec, bench.device)
    return bench.random(n_buffers, sum(n_pages), 2, n_kv_heads, BLOCK_SIZE, head_dim), attend
