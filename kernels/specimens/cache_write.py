"""Launches of the kernel that rotates and caches."""

from collections.abc import Iterator

from kernels import cache_write
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    bf16 = dict.fromkeys(("qkv_ptr", "q_norm_ptr", "k_norm_ptr", "q_ptr", "pages_ptr"), "*bf16")
    for has_norm in (False, True):
        yield Specimen(
            f"write{' norm' * has_norm}", cache_write.write,
            {**bf16, "cos_ptr": "*fp32", "sin_ptr": "*fp32", "slots_ptr": "*i64", "page_stride": "i32", "eps": "fp32"},
            {"HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_HALF": 64, "PAGE": 32, "HAS_NORM": has_norm},
            ("page_stride",),
        )  # fmt: skip
