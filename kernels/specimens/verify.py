"""Launches of the kernels that verify drafts, over a vocabulary like Llama 3's."""

from collections.abc import Iterator

from kernels import verify
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    tree = {"tokens_ptr": "*i64", "parents_ptr": "*i32", "starts_ptr": "*i64"}
    out = {"accepted_ptr": "*i64", "path_ptr": "*i64"}
    for max_nodes in (8, 64):
        block = 1 << (max_nodes - 1).bit_length()
        yield Specimen(
            f"longest_match {max_nodes}", verify.longest_match,
            {**tree, **out, "sampled_ptr": "*i64", "path_size": "i32"},
            {"BLOCK": block, "LOG_BLOCK": block.bit_length() - 1}, warps=verify.MATCH_WARPS,
        )  # fmt: skip
    yield Specimen(
        "walk", verify.walk,
        {
            **tree, **out, "target_ptr": "*fp32", "draft_ptr": "*fp32", "draft_of_ptr": "*i32", "keys_ptr": "*i64",
            "last_ptr": "*i64", "vocab": "i32", "path_size": "i32",
        },
        {"BLOCK_PATH": 64, "BLOCK": verify.WALK_BLOCK}, ("vocab",), warps=verify.WALK_WARPS,
    )  # fmt: skip
    yield Specimen(
        "draw_of_block", verify.draw_of_block,
        {
            "target_ptr": "*fp32", "keys_ptr": "*i64", "last_ptr": "*i64", "scores_ptr": "*fp32", "best_ptr": "*i64",
            "vocab": "i32",
        },
        {"BLOCK": verify.DRAW_BLOCK}, ("vocab",), warps=verify.DRAW_WARPS,
    )  # fmt: skip
    strides = ("page_stride", "head_stride", "scale_page_stride", "scale_head_stride")
    for pages, scales in (("*i16", "*i16"), ("*i32", "*i32"), ("*u8", "*fp32")):
        yield Specimen(
            f"move {pages[1:]}", verify.move,
            {
                "pages_ptr": pages, "scales_ptr": scales, "slots_ptr": "*i64", "path_ptr": "*i64",
                "starts_ptr": "*i64", "accepted_ptr": "*i64", "path_size": "i32", **dict.fromkeys(strides, "i32"),
            },
            {"HEAD_DIM": 128, "BLOCK_D": 128, "PAGE": 32, "HAS_SCALES": scales == "*fp32"},
            strides, warps=verify.MOVE_WARPS,
        )  # fmt: skip
