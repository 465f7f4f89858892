"""Launches of the kernels that go row by row: norms and gates."""

from collections.abc import Iterator

from kernels import activation, norm
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    names = ("x_ptr", "residual_ptr", "weight_ptr", "out_ptr", "total_ptr")
    for block, dtype, has_residual in (
        (1024, "*bf16", False),
        (4096, "*bf16", False),
        (4096, "*bf16", True),
        (4096, "*fp16", True),
        (16384, "*bf16", True),
        (16384, "*fp32", True),
    ):
        yield Specimen(
            f"norm_rows {block}{' residual' * has_residual} {dtype[1:]}", norm.norm_rows,
            {**dict.fromkeys(names, dtype), "size": "i32", "eps": "fp32"},
            {"BLOCK": block, "HAS_RESIDUAL": has_residual}, ("size",), warps=norm.warps_for(block),
        )  # fmt: skip
    for dtype, is_gelu in (("*bf16", False), ("*bf16", True), ("*fp16", False), ("*fp32", True)):
        yield Specimen(
            f"gate_rows{' gelu' * is_gelu} {dtype[1:]}", activation.gate_rows,
            {"gate_up_ptr": dtype, "out_ptr": dtype, "size": "i32"},
            {"BLOCK": activation.GATE_BLOCK, "IS_GELU": is_gelu}, ("size",), warps=activation.WARPS,
        )  # fmt: skip
