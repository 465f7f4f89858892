"""Which rows a router was trained on, as short digests: enough to leave them out of a comparison, and no text."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.outcomes import Outcome

_BYTES = 8
"""Of a digest. Beside a million rows of training, fewer than one foreign row in a billion passes for known."""


@dataclass(frozen=True, slots=True, eq=False)
class LearnedRows:
    """digests uint64 [n], ascending: one to three of each row that was trained on."""

    digests: NDArray[np.uint64]

    def __post_init__(self) -> None:
        """ValueError: another type or shape."""
        if self.digests.dtype != np.uint64 or self.digests.ndim != 1:
            raise ValueError("digests of training rows have to be one column of uint64")

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "LearnedRows":
        """Those of these rows."""
        found = {digest for one in outcomes for digest in _digests(one)}
        return cls(np.array(sorted(found), np.uint64))

    def __or__(self, other: "LearnedRows") -> "LearnedRows":
        """The rows of both."""
        return LearnedRows(np.union1d(self.digests, other.digests))

    def knows(self, outcome: Outcome) -> bool:
        """Whether a row was trained on: itself, the same words, or another one of its group."""
        asked = np.array(_digests(outcome), np.uint64)
        at = np.minimum(np.searchsorted(self.digests, asked), max(len(self.digests) - 1, 0))
        return bool(len(self.digests) and (self.digests[at] == asked).any())


def _digests(one: Outcome) -> list[int]:
    """What a row is known by.

    A logged decision has its id; a prompt what is in it, whatever name it goes by; a prompt with a prefill, which never
    comes out the same to the last bit, its name as well. A group is known where it is more than the row itself.
    """
    found = []
    if one.features is not None:
        found.append(_digest(b"decision", one.id.encode()))
    else:
        said = [one.text.encode(), msgspec.json.encode(one.facts)]
        if one.state is not None:
            said.append(one.state.values.astype("<f4").tobytes())
            found.append(_digest(b"name", one.id.encode(), one.text.encode()))
        found.append(_digest(b"said", *said))
    if one.group != one.id:
        found.append(_digest(b"group", one.group.encode()))
    return found


def _digest(*parts: bytes) -> int:
    """Of the parts in order, each with its length in front so that none runs on into the next."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")
