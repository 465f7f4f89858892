"""Launches of the attention kernels, with the tiles and constants that `attention` chooses for them: shapes of Llama 3
8B and 70B, Qwen 3, Gemma 2, gpt-oss, Mistral and MPT."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from kernels import attention, attention_kernels
from kernels.kernel_set import AttentionSpec
from kernels.quantized_pages import FORMATS
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]

LLAMA = AttentionSpec(32, 8, 128, 128**-0.5)
LLAMA_70B = replace(LLAMA, n_heads=64)
SMALL = AttentionSpec(16, 8, 64, 64**-0.5)
PHI_3 = AttentionSpec(32, 32, 96, 96**-0.5)
MISTRAL = replace(LLAMA, window=4096)
GEMMA_2 = AttentionSpec(16, 8, 256, 256**-0.5, softcap=50.0, window=4096)
GPT_OSS = AttentionSpec(64, 8, 64, 64**-0.5, window=128)
MPT = AttentionSpec(32, 32, 128, 128**-0.5, alibi=(0.5,) * 32)
BLOCK_SIZE = 32
TYPES = {
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int8: "*i8",
    torch.float8_e4m3fn: "*fp8e4nv",
}  # fmt: skip
QUERIES = {"decode": 1, "verify": 5, "wide verify": 16, "chunk": 512}
"""Most queries of a row."""


def attend(
    name: str,
    spec: AttentionSpec,
    q_dtype: torch.dtype = torch.bfloat16,
    page_dtype: torch.dtype | None = None,
    *,
    block_size: int = BLOCK_SIZE,
    has_trees: bool = False,
    has_sinks: bool = False,
    is_invariant: bool = False,
) -> Iterator[Specimen]:
    """The launch of a step, named after its kind and more; where GPUs before Hopper get another tile, both."""
    kind = next(kind for kind in sorted(QUERIES, key=len, reverse=True) if name.startswith(kind))
    page_dtype = page_dtype or q_dtype
    rows = attention.rows_of_item(spec.n_heads // spec.n_kv_heads, QUERIES[kind], is_invariant)
    floats = ("scales_ptr", "sinks_ptr", "slopes_ptr", "partial_ptr", "lse_ptr")
    types = {
        "q_ptr": TYPES[q_dtype], "out_ptr": TYPES[q_dtype], "pages_ptr": TYPES[page_dtype],
        **dict.fromkeys(floats, "*fp32"), **dict.fromkeys(("items_ptr", "tables_ptr", "positions_ptr"), "*i32"),
        "words_ptr": "*i64" if has_trees else "*i32",
        "scale_log2": "fp32", "page_stride": "i32", "partial_rows": "i32",
    }  # fmt: skip
    tiles = {
        attention.choose_tile(rows, spec.head_dim, q_dtype, page_dtype, capability): capability
        for capability in (attention.HOPPER, 80)
    }
    for tile, capability in tiles.items():
        constants = attention.attend_constants(
            spec, rows, tile, page_dtype, block_size,
            has_trees=has_trees, has_sinks=has_sinks, is_invariant=is_invariant,
        )  # fmt: skip
        yield Specimen(
            f"attend {name}{' before Hopper' * (len(tiles) > 1 and capability < attention.HOPPER)}",
            attention_kernels.attend, types, constants, ("page_stride",), tile.warps, tile.stages,
            min_capability=max(capability, attention.FP8_CAPABILITY * (page_dtype == torch.float8_e4m3fn)),
            max_capability=attention.HOPPER - 1 if len(tiles) > 1 and capability < attention.HOPPER else 999,
            wants_tensor_cores=q_dtype != torch.float32,
        )  # fmt: skip


def merge(name: str, spec: AttentionSpec, dtype: torch.dtype = torch.bfloat16, *, has_sinks: bool = False) -> Specimen:
    """The launch that follows where rows were cut."""
    floats = dict.fromkeys(("partial_ptr", "lse_ptr", "sinks_ptr"), "*fp32")
    return Specimen(
        f"merge{name}", attention_kernels.merge,
        {**floats, "out_ptr": TYPES[dtype], "merges_ptr": "*i32", "partial_rows": "i32"},
        attention.merge_constants(spec, has_sinks=has_sinks),
    )  # fmt: skip


def specimens() -> Iterator[Specimen]:
    """Named after the kernel, the kind of step and the flags."""
    for kind in ("decode", "verify", "chunk"):
        yield from attend(kind, LLAMA)
        yield from attend(f"{kind} window", MISTRAL)
        yield from attend(f"{kind} of 256 capped window", GEMMA_2)
        yield from attend(f"{kind} of 64 window sinks", GPT_OSS, has_sinks=True)
        for page_dtype in FORMATS:
            yield from attend(f"{kind} {TYPES[page_dtype][1:]}", LLAMA, page_dtype=page_dtype)
    for kind in ("verify", "wide verify", "chunk"):
        yield from attend(f"{kind} tree", LLAMA, has_trees=True)
        yield from attend(f"{kind} tree i8", LLAMA, page_dtype=torch.int8, has_trees=True)
        yield from attend(f"{kind} tree of 256 capped window", GEMMA_2, has_trees=True)
        yield from attend(f"{kind} tree of 64 window sinks", GPT_OSS, has_trees=True, has_sinks=True)
    for kind in ("decode", "chunk"):
        yield from attend(f"{kind} fp16", LLAMA, torch.float16)
        yield from attend(f"{kind} fp16 i8", LLAMA, torch.float16, torch.int8)
        yield from attend(f"{kind} fp32 of 64 i8", SMALL, torch.float32, torch.int8)
        yield from attend(f"{kind} of 64", SMALL)
        yield from attend(f"{kind} of 96", PHI_3)
        yield from attend(f"{kind} of 256 i8", GEMMA_2, page_dtype=torch.int8)
        yield from attend(f"{kind} alibi", MPT)
        yield from attend(f"{kind} pages of 128", LLAMA, block_size=128)
    yield from attend("decode of 8 per KV head", LLAMA_70B)
    yield from attend("decode pages of 16", LLAMA, block_size=16)
    yield from attend("decode fp32", LLAMA, torch.float32)
    yield from attend("chunk fp32 of 256 capped window", GEMMA_2, torch.float32)
    yield from attend("verify tree alibi", MPT, has_trees=True)
    yield from attend("verify tree invariant", LLAMA, has_trees=True, is_invariant=True)
    yield from attend("chunk invariant", LLAMA, is_invariant=True)
    yield from attend("chunk invariant of 256 capped window", GEMMA_2, is_invariant=True)
    yield from attend("chunk invariant i8", LLAMA, page_dtype=torch.int8, is_invariant=True)
    yield from attend("chunk invariant fp32", LLAMA, torch.float32, is_invariant=True)
    yield merge("", LLAMA)
    yield merge(" of 256", GEMMA_2)
    yield merge(" of 64 sinks", GPT_OSS, has_sinks=True)
    yield merge(" fp32 of 96", PHI_3, torch.float32)
