"""Launches of the kernels that rotate and cache, with the heads of Llama 3 8B."""

from collections.abc import Iterator

from kernels import cache_write
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    heads = {"HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_HALF": 64, "BLOCK_H": cache_write.TILE // 64}
    few = {"HEADS": 14, "KV_HEADS": 2, "HEAD_DIM": 64, "BLOCK_HALF": 32, "BLOCK_H": 32}
    for name, dtype, shape in (
        ("", "*bf16", {**heads, "PAGE": 32, "HAS_NORM": False}),
        (" norm", "*bf16", {**heads, "PAGE": 32, "HAS_NORM": True}),
        (" norm fp16", "*fp16", {**heads, "PAGE": 32, "HAS_NORM": True}),
        (" few heads fp32", "*fp32", {**few, "PAGE": 32, "HAS_NORM": False}),
        (" plain", "*bf16", {**heads, "PAGE": 0, "HAS_NORM": False}),
    ):
        pointers = dict.fromkeys(("qkv_ptr", "q_norm_ptr", "k_norm_ptr", "q_ptr", "kv_ptr"), dtype)
        yield Specimen(
            f"write{name}", cache_write.write,
            {**pointers, "cos_ptr": "*fp32", "sin_ptr": "*fp32", "slots_ptr": "*i64", "page_stride": "i32",
             "eps": "fp32"},
            shape, ("page_stride",), warps=cache_write.WARPS,
        )  # fmt: skip
    strides = ("page_stride", "head_stride", "scale_page_stride", "scale_head_stride")
    yield Specimen(
        "scatter", cache_write.scatter,
        {
            "elements_ptr": "*u8", "pages_ptr": "*u8", "scales_ptr": "*fp32", "page_scales_ptr": "*fp32",
            "slots_ptr": "*i64", **dict.fromkeys(strides, "i32"),
        },
        {"HEADS": 16, "HEAD_DIM": 128, "BLOCK_D": 128, "BLOCK_H": cache_write.SCATTER_TILE // 128, "PAGE": 32},
        strides, warps=cache_write.WARPS,
    )  # fmt: skip
