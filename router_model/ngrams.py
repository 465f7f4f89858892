"""Hashed n-grams of a text: words, word pairs, and runs of four bytes, counted in a fixed number of columns.

Feature hashing (Weinberger et al., 2009) needs no vocabulary, so that a text of any language has features and an
artefact stays small. The hash is a polynomial over UTF-8 bytes modulo 2^64 and written in whole-array operations: some
0.1 ms for a text of 400 characters, and equal on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from router_model.sparse import SparseRow

BITS = 13
"""log2 of the columns of one block."""

N_COLUMNS = 2 << BITS
"""Columns in all: the block of words, then the block of byte runs."""

MAX_BYTES = 8_192
"""Of a longer text the first and the last half of this many bytes count."""

_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(64 - BITS)
_RUN_BYTES = 4
"""Runs of three and five bytes beside those of four cost three times as much and gained nothing on MMLU outcomes."""


def hashed_ngrams(text: str) -> SparseRow:
    """Counts of the text's n-grams by column (float32, 1 or more). Case is ignored; an empty text has no entries."""
    data = _clipped(text.lower())
    hashes = [_word_hashes(data), _run_hashes(data)]
    columns = np.concatenate(
        [((block * _MIX) >> _SHIFT).astype(np.int64) + (n << BITS) for n, block in enumerate(hashes)]
    )
    present, counts = np.unique(columns, return_counts=True)
    return SparseRow(present.astype(np.int32), counts.astype(np.float32))


def _clipped(text: str) -> NDArray[np.uint64]:
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        data = data[: MAX_BYTES // 2] + b" " + data[-MAX_BYTES // 2 :]
    return np.frombuffer(data, np.uint8).astype(np.uint64)


def _word_hashes(data: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of all words (runs of letters, digits and bytes beyond ASCII) and of all pairs of neighbours."""
    lower = data | np.uint64(32)
    inside = ((lower >= 97) & (lower <= 122)) | ((data >= 48) & (data <= 57)) | (data >= 128)
    edges = np.diff(inside.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not starts.size:
        return np.zeros(0, np.uint64)
    # Powers count down from a word's end, so that a word has one hash wherever it stands.
    lengths = ends - starts
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    powers = _powers(int(lengths.max()))[position]
    at = np.repeat(starts, lengths) + position
    words = np.add.reduceat((data[at] + np.uint64(1)) * powers, np.cumsum(lengths) - lengths)
    pairs = words[:-1] * _PAIR + (words[1:] ^ (words[1:] >> np.uint64(29)))
    return np.concatenate([words, pairs])


def _run_hashes(data: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of every run of _RUN_BYTES bytes, spaces included."""
    n = len(data) - _RUN_BYTES + 1
    if n <= 0:
        return np.zeros(0, np.uint64)
    powers = _powers(_RUN_BYTES)
    hashes = np.zeros(n, np.uint64)
    for k in range(_RUN_BYTES):
        hashes += (data[k : k + n] + np.uint64(1)) * powers[k]
    return hashes


def _powers(n: int) -> NDArray[np.uint64]:
    """_BASE ** 0 … n - 1 modulo 2^64."""
    return np.multiply.accumulate(np.concatenate([np.ones(1, np.uint64), np.full(n - 1, _BASE)]))
