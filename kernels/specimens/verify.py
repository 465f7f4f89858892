"""Launches of the kernels that verify drafts."""

from collections.abc import Iterator

from kernels import verify
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]


def specimens() -> Iterator[Specimen]:
    """Named after the kernel and its flags."""
    yield Specimen(
        "first_mismatch", verify.first_mismatch,
        dict.fromkeys(("drafted_ptr", "sampled_ptr", "starts_ptr", "accepted_ptr"), "*i64"), {"BLOCK": 64},
    )  # fmt: skip
