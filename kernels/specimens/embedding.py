"""Launches of the kernels that a step begins with."""

from collections.abc import Iterator

from kernels import embedding
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    for dtype, has_drawn, has_scale in (("bf16", True, False), ("bf16", True, True), ("fp32", False, False)):
        yield Specimen(
            f"copy_rows{' drawn' * has_drawn}{' scale' * has_scale}", embedding.copy_rows,
            {
                "tokens_ptr": "*i64", "drawn_ptr": "*i64", "table_ptr": f"*{dtype}", "out_ptr": f"*{dtype}",
                "scale": "fp32", "size": "i32",
            },
            {"HAS_DRAWN": has_drawn, "HAS_SCALE": has_scale, "BLOCK": embedding.EMBED_BLOCK}, ("size",),
            warps=embedding.WARPS,
        )  # fmt: skip
    yield Specimen(
        "turn", embedding.turn,
        {
            "positions_ptr": "*i64", "inv_freq_ptr": "*fp32", "cos_ptr": "*fp32", "sin_ptr": "*fp32",
            "n_tokens": "i32", "factor": "fp32",
        },
        {"HALF": 64, "BLOCK_HALF": 64, "BLOCK_T": embedding.TABLE_TILE // 64}, warps=embedding.WARPS,
        stack_allowance=32,  # libdevice reduces huge angles in an array of 7 words, where the compiler keeps it (3.6)
    )  # fmt: skip
