"""Launches of the attention kernels: bfloat16 with the shapes of Llama 3 8B and Gemma 2 9B, and float32."""

from collections.abc import Iterator

from kernels import attention
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    pointers = {
        "tables_ptr": "*i32", "starts_ptr": "*i32", "contexts_ptr": "*i32", "block_rows_ptr": "*i32",
        "block_queries_ptr": "*i32", "lse_ptr": "*fp32", "scale_log2": "fp32", "table_stride": "i32",
        "page_stride": "i32", "n_tokens": "i32",
    }  # fmt: skip
    heads = {"GROUP": 4, "KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_D": 128, "PAGE": 32, "BLOCK_N": 32}
    wide = {**heads, "GROUP": 2, "HEAD_DIM": 256, "BLOCK_D": 256, "BLOCK_Q": 16, "BLOCK_M": 32}
    few = {"BLOCK_Q": 4, "BLOCK_M": 16}
    many = {"BLOCK_Q": 16, "BLOCK_M": 64}
    for name, dtype, out, shape in (
        ("attend decode", "*bf16", "*bf16", {**heads, **few, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 0.0}),
        ("attend decode split", "*bf16", "*fp32", {**heads, **few, "WINDOW": 0, "SPLIT": 512, "SOFTCAP": 0.0}),
        ("attend chunk", "*bf16", "*bf16", {**heads, **many, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 0.0}),
        ("attend chunk window", "*bf16", "*bf16", {**heads, **many, "WINDOW": 4096, "SPLIT": 0, "SOFTCAP": 0.0}),
        ("attend chunk wide capped", "*bf16", "*bf16", {**wide, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 50.0}),
        (
            "attend decode fp32",
            "*fp32",
            "*fp32",
            {**heads, **few, "HEAD_DIM": 64, "BLOCK_D": 64, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 0.0},
        ),
    ):
        types = {**pointers, "q_ptr": dtype, "pages_ptr": dtype, "out_ptr": out}
        yield Specimen(name, attention.attend, types, shape, ("page_stride",))
    yield Specimen(
        "merge_splits", attention.merge_splits,
        {"partial_ptr": "*fp32", "lse_ptr": "*fp32", "out_ptr": "*bf16", "n_vectors": "i32", "n_splits": "i32"},
        {"HEAD_DIM": 128, "BLOCK_D": 128},
    )  # fmt: skip
