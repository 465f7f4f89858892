"""The flag combinations of every kernel that the engine launches, by file of `kernels/`: what `kernels.aot` builds."""

from collections.abc import Iterator

from kernels.specimens.specimen import Specimen

__all__ = ["Specimen", "specimens"]


def specimens() -> Iterator[Specimen]:
    """All of them. Imports triton."""
    from kernels.specimens import (
        attention,
        cache_write,
        embedding,
        int8_rows,
        linear,
        page_sums,
        rows,
        sampling,
        verify,
    )

    for module in (attention, cache_write, embedding, int8_rows, linear, page_sums, rows, sampling, verify):
        yield from module.specimens()
