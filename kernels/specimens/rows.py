"""Launches of the kernels that go row by row: norms and gates."""

from collections.abc import Iterator

from kernels import activation, norm
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    for has_residual in (False, True):
        names = ("x_ptr", "residual_ptr", "weight_ptr", "out_ptr", "total_ptr")
        yield Specimen(
            f"norm_rows{' residual' * has_residual}", norm.norm_rows,
            {**dict.fromkeys(names, "*bf16"), "size": "i32", "eps": "fp32"},
            {"BLOCK": 4096, "HAS_RESIDUAL": has_residual}, ("size",),
        )  # fmt: skip
    for is_gelu in (False, True):
        yield Specimen(
            f"gate_rows{' gelu' * is_gelu}", activation.gate_rows,
            {"gate_up_ptr": "*bf16", "out_ptr": "*bf16", "size": "i32"},
            {"BLOCK": 1024, "IS_GELU": is_gelu}, ("size",),
        )  # fmt: skip
