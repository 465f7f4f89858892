"""Launches of the kernels around an exact int8 product: the sizes of Llama 3.1 8B."""

from collections.abc import Iterator

from kernels import int8_rows
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel, and the dtype and size of a row."""
    for dtype in ("bf16", "fp16"):
        for size, block in ((896, 1024), (14336, int8_rows.ROW_BLOCK)):
            yield Specimen(
                f"round_row {dtype} {size}", int8_rows.round_row,
                {"x_ptr": f"*{dtype}", "rounded_ptr": "*i8", "scales_ptr": "*fp32", "size": "i32", "row_stride": "i32"},
                {"BLOCK": block}, ("size",), int8_rows.WARPS,
            )  # fmt: skip
        for has_bias in (False, True):
            yield Specimen(
                f"scale_row {dtype}{' bias' * has_bias}", int8_rows.scale_row,
                {
                    "sums_ptr": "*i32", "x_scales_ptr": "*fp32", "scales_ptr": "*fp32", "bias_ptr": "*fp32",
                    "out_ptr": f"*{dtype}", "size": "i32", "sums_stride": "i32",
                },
                {"HAS_BIAS": has_bias, "BLOCK": int8_rows.SUMS_BLOCK}, ("size",),
            )  # fmt: skip
