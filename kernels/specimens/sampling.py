"""Launches of the sampling kernels."""

from collections.abc import Iterator

from kernels import sampling
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    for has_mask in (False, True):
        yield Specimen(
            f"best_of_block{' mask' * has_mask}", sampling.best_of_block,
            {
                "logits_ptr": "*fp32", "words_ptr": "*i32", "temperatures_ptr": "*fp32", "keep_from_ptr": "*fp32",
                "keys_ptr": "*i64", "scores_ptr": "*fp32", "tokens_ptr": "*i32", "vocab": "i32", "n_words": "i32",
            },
            {"HAS_MASK": has_mask, "BLOCK": 1024},
        )  # fmt: skip
