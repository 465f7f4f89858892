"""Launches of the sampling kernels, over a vocabulary of 128k."""

from collections.abc import Iterator

from kernels import cut, sampling
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]

FLOATS = ("logits_ptr", "keep_from_ptr", "temperatures_ptr", "scores_ptr", "chosen_ptr", "maxima_ptr", "sums_ptr")
SIZES = {"vocab": "i32", "n_words": "i32", "flags": "i32"}


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    yield Specimen(
        "edit_entries", sampling.edit_entries,
        {
            **dict.fromkeys(("logits_ptr", "bias_ptr", "repetition_ptr", "subtract_ptr"), "*fp32"),
            "rows_ptr": "*i32", "tokens_ptr": "*i32", "vocab": "i32", "n_entries": "i32",
        },
        {"BLOCK": sampling.EDITS_BLOCK}, ("vocab",),
    )  # fmt: skip
    yield Specimen(
        "cut_row", cut.cut_row,
        {
            **dict.fromkeys(("logits_ptr", "temperatures_ptr", "top_p_ptr", "min_p_ptr", "keep_from_ptr"), "*fp32"),
            **dict.fromkeys(("words_ptr", "mask_of_ptr", "top_k_ptr"), "*i32"), **SIZES,
        },
        {"BLOCK": cut.MAX_BLOCK}, ("vocab",), warps=cut.WARPS,
    )  # fmt: skip
    for has_logprobs in (False, True):
        suffix = " logprobs" * has_logprobs
        yield Specimen(
            f"best_of_block{suffix}", sampling.best_of_block,
            {
                **dict.fromkeys(FLOATS, "*fp32"), **SIZES, "keys_ptr": "*i64",
                **dict.fromkeys(("words_ptr", "mask_of_ptr", "tokens_ptr", "counts_ptr"), "*i32"),
            },
            {"HAS_LOGPROBS": has_logprobs, "BLOCK": sampling.MAX_BLOCK}, ("vocab",),
        )  # fmt: skip
        yield Specimen(
            f"best_of_row{suffix}", sampling.best_of_row,
            {
                **dict.fromkeys(("scores_ptr", "chosen_ptr", "maxima_ptr", "sums_ptr", "logprobs_ptr"), "*fp32"),
                **dict.fromkeys(("block_tokens_ptr", "counts_ptr", "n_allowed_ptr"), "*i32"),
                "tokens_ptr": "*i64", "n_blocks": "i32",
            },
            {"HAS_LOGPROBS": has_logprobs, "BLOCKS": 128},
        )  # fmt: skip
