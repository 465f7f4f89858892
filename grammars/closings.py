"""Tokens that hold a quote: what stands before it, and what after."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_QUOTE, _ESCAPE = 0x22, 0x5C


class Closings:
    """The tokens by which a string can end, read from a place between two of its characters, in the order of their
    bytes.

    ids: int64 [n]; suffixes: the different byte strings after the closing quote; suffix: int64 [n], the index of each
    token's; ends_container: bool, whether a suffix holds a closing bracket. odd: ids of those in which an escape comes
    before the quote.
    """

    def __init__(self, by_id: Sequence[bytes], quoted: NDArray[np.int64]) -> None:
        """quoted: ids of the tokens that hold a quote, in the order of their bytes."""
        found: list[int] = []
        odd: list[int] = []
        self._spellings: list[bytes] = []
        indices: dict[bytes, int] = {}
        suffix: list[int] = []
        for token_id in quoted.tolist():
            spelling = by_id[token_id]
            end = _end(spelling)
            if end < 0:
                continue
            if _ESCAPE in spelling[:end]:
                odd.append(token_id)
            found.append(token_id)
            self._spellings.append(spelling)
            suffix.append(indices.setdefault(spelling[end + 1 :], len(indices)))
        self.ids = np.array(found, dtype=np.int64)
        self.odd = np.array(odd, dtype=np.int64)
        self.suffix = np.array(suffix, dtype=np.int64)
        self.suffixes = tuple(indices)
        self.ends_container = np.array([b"}" in one or b"]" in one for one in self.suffixes], dtype=np.bool_)

    def starting(self, text: bytes) -> slice:
        """Where in `ids` the tokens stand that close a string right after `text`, which holds no quote."""
        low = bisect_left(self._spellings, text + b'"')
        high = bisect_left(self._spellings, text + b"#")
        return slice(low, high)


def _end(spelling: bytes) -> int:
    """Where the closing quote stands; -1 where every quote is escaped."""
    i = 0
    while i < len(spelling):
        if spelling[i] == _QUOTE:
            return i
        i += 2 if spelling[i] == _ESCAPE else 1
    return -1
