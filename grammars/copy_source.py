"""The text that free strings are copied from, as JSON spells it: where a value stands in it, and how it can go on.

A value so far is the set of its `ends`: every place right after an occurrence of it. One byte narrows the set, and the
tokens that continue the value are those that the text begins with at one of the places, which are listed once:

    spelling   c a f é   b a r        ends of "a"       2, 8
    place      0 1 2 3   6 7 8        tokens at 2, 8    f fé r
"""

import json
import re
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from grammars.spellings import Spellings

Ids = NDArray[np.int64]
_UNWRITABLE: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f\ud800-\udfff]")
_GAP: Final = b"\xff"  # no byte of UTF-8, so no value runs over it
_CHARACTER: Final = re.compile(rb"\\.|[^\x80-\xbf\xff][\x80-\xbf]*")


class CopySource:
    """One text before one vocabulary. Each character has one spelling: an escape of two bytes where JSON has one, else
    its UTF-8. Control characters without such an escape, and halves of surrogate pairs, are in no value.

    starts: the places where a value may begin, those of characters; empty when nothing can be copied.
    """

    def __init__(self, text: str, spellings: Spellings) -> None:
        pieces = [json.dumps(piece, ensure_ascii=False)[1:-1].encode() for piece in _UNWRITABLE.split(text)]
        self._data = _GAP.join(pieces) + _GAP
        self._bytes = np.frombuffer(self._data, dtype=np.uint8)
        self._spellings = spellings
        self._first: dict[int, Ids] = {}  # ends of the values of one byte
        self.starts: Ids = np.array([found.start() for found in _CHARACTER.finditer(self._data)], dtype=np.int64)

    def warm_up(self) -> None:
        """List the tokens of every place now, which takes some 2 µs per byte of text."""
        self._after_nothing  # noqa: B018

    def step(self, ends: Ids, byte: int) -> Ids:
        """The ends of the value with one more byte; empty when it no longer occurs."""
        if ends is not self.starts:
            return np.asarray(ends[self._bytes[ends] == byte] + 1)
        if byte not in self._first:
            self._first[byte] = self.starts[self._bytes[self.starts] == byte] + 1
        return self._first[byte]

    def next_bytes(self, ends: Ids) -> NDArray[np.bool_]:
        """For each byte whether the value can go on with it, [256]."""
        table = np.zeros(256, dtype=np.bool_)
        table[self._bytes[ends]] = True
        return table

    def tokens(self, ends: Ids) -> Ids:
        """Ids of the tokens that continue a value within the text; an id may come more than once."""
        return self._after_nothing if ends is self.starts else self._at(ends)

    @cached_property
    def _after_nothing(self) -> Ids:
        return np.unique(self._at(self.starts))

    @cached_property
    def _listed(self) -> tuple[Ids, Ids]:
        """Token ids of all places on end, and where those of each place begin (one entry more than places)."""
        ids: list[int] = []
        begins = [0]
        for place in range(len(self._data)):
            ids += self._spellings.beginnings(self._data, place)
            begins.append(len(ids))
        return np.array(ids, dtype=np.int64), np.array(begins, dtype=np.int64)

    def _at(self, places: Ids) -> Ids:
        ids, begins = self._listed
        counts = begins[places + 1] - begins[places]
        shifts = begins[places] - (np.cumsum(counts) - counts)
        return np.asarray(ids[np.arange(counts.sum()) + np.repeat(shifts, counts)])
