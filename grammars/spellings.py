"""A vocabulary as bytes: which tokens a text begins with, and which tokens hold a quote."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from grammars.closings import Closings
from grammars.constraint import Choice, FreeText
from grammars.scanned_text import ScannedText
from grammars.string_lengths import StringLengths
from grammars.token_run import TokenRun

_HEAD: Final = 3  # tokens of at least this many bytes are found by their first ones
QUOTE: Final = 0x22
_KEPT_TEXTS: Final = 16


class Spellings:
    """The text tokens of a vocabulary by their bytes. Made once per vocabulary, about 0.3 s for 150,000 tokens.

    by_id: bytes of each token (b"" for those without text). rank: place of each token in the order of their bytes.
    is_open: whether a token begins with a quote and holds no other. quoted: ids of the tokens that hold a quote;
    opening: of those the ones in which a byte follows a quote; both are in the order of their bytes. first: each
    token's first byte, 0 for those without text.
    """

    def __init__(self, by_id: Sequence[bytes], silent_ids: Collection[int]) -> None:
        self.by_id = [b"" if i in silent_ids else spelling for i, spelling in enumerate(by_id)]
        self.first = np.array([spelling[0] if spelling else 0 for spelling in self.by_id], dtype=np.uint8)
        self._ids: dict[bytes, list[int]] = {}
        lengths: dict[bytes, set[int]] = {}
        for token_id, spelling in enumerate(self.by_id):
            if spelling:
                self._ids.setdefault(spelling, []).append(token_id)
            if len(spelling) >= _HEAD:
                lengths.setdefault(spelling[:_HEAD], set()).add(len(spelling))
        self._lengths = {head: sorted(found) for head, found in lengths.items()}
        self.rank = np.zeros(len(self.by_id), dtype=np.int64)
        ordered = [i for _, ids in sorted(self._ids.items()) for i in ids]
        self.rank[ordered] = np.arange(len(ordered))
        self.is_open = np.array(
            [spelling[:1] == b'"' and QUOTE not in spelling[1:] for spelling in self.by_id], dtype=np.bool_
        )
        quoted = sorted((spelling, ids) for spelling, ids in self._ids.items() if QUOTE in spelling)
        self.quoted = _array([i for _, ids in quoted for i in ids])
        self.opening = _array([i for spelling, ids in quoted if spelling.index(QUOTE) < len(spelling) - 1 for i in ids])

    @cached_property
    def lengths(self) -> StringLengths:
        """What each token adds to a JSON string; made when first asked for."""
        return StringLengths(self.by_id)

    @cached_property
    def closings(self) -> Closings:
        """The tokens that hold a quote, taken apart; made when first asked for."""
        return Closings(self.by_id, self.quoted)

    @cached_property
    def run(self) -> TokenRun:
        """The vocabulary in one row; made when first asked for."""
        return TokenRun(self.by_id)

    def scanned(self, parts: "tuple[FreeText | Choice, ...]", *, may_end: bool = False) -> ScannedText:
        """What the tokens do in free and fixed texts; the last few are kept, as markers recur with every request."""
        return self._scanned(parts, may_end)

    @cached_property
    def _scanned(self) -> "Callable[[tuple[FreeText | Choice, ...], bool], ScannedText]":
        return lru_cache(_KEPT_TEXTS)(lambda parts, may_end: ScannedText(parts, self.run, may_end=may_end))

    def beginnings(self, data: bytes, start: int) -> list[int]:
        """The tokens that `data` begins with at `start`."""
        found: list[int] = []
        for n in range(1, _HEAD):
            found += self._ids.get(data[start : start + n], ())
        for n in self._lengths.get(data[start : start + _HEAD], ()):
            found += self._ids.get(data[start : start + n], ())
        return found


def _array(ids: list[int]) -> NDArray[np.int64]:
    return np.array(ids, dtype=np.int64)
