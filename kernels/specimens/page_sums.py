"""Launches of the kernels that sum hidden states by page."""

from collections.abc import Iterator

from kernels import page_sums
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its dtype."""
    for dtype in ("fp32", "bf16"):
        yield Specimen(
            f"add_segment {dtype}", page_sums.add_segment,
            {"sums_ptr": "*fp32", "states_ptr": f"*{dtype}", "segments_ptr": "*i32", "size": "i32"},
            {"BLOCK": page_sums.ADD_BLOCK, "UNROLL": page_sums.UNROLL}, ("size",), warps=page_sums.WARPS,
        )  # fmt: skip
    yield Specimen(
        "carry", page_sums.carry,
        {"before_ptr": "*fp32", "sums_ptr": "*fp32", "links_ptr": "*i32", "n_links": "i32", "size": "i32"},
        {"BLOCK": page_sums.CARRY_BLOCK}, ("size",), warps=page_sums.WARPS,
    )  # fmt: skip
