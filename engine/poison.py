"""Remembers which requests were in flight when the engine died, so that none of them may kill it a third time."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

__all__ = ["Suspects", "content_key"]


def content_key(*parts: object) -> bytes:
    """What a request asks for, as a key: two requests with equal parts (plain data and msgspec structs) share it."""
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


class Suspects:
    """Counts deaths by content. Who was computed beside the culprit is suspected too, until one of its requests ends
    well, or `memory_s` have passed since its last death: an innocent neighbour is not shut out for good, and a culprit
    that is sent again and again costs at most `max_deaths` restarts in that time.
    """

    def __init__(
        self,
        *,
        max_deaths: int = 2,
        max_entries: int = 4096,
        memory_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_deaths, self._max_entries = max_deaths, max_entries
        self._memory_s, self._clock = memory_s, clock
        self._deaths: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # number, and time of the last one

    def note_death(self, suspects: Iterable[bytes]) -> None:
        """The engine died while it worked for these."""
        for key in set(suspects):
            n = self._count(key)
            self._deaths.pop(key, None)
            self._deaths[key] = (n + 1, self._clock())
        while len(self._deaths) > self._max_entries:
            self._deaths.popitem(last=False)

    def clear(self, key: bytes) -> None:
        """A request of this content ended well."""
        self._deaths.pop(key, None)

    def is_poison(self, key: bytes) -> bool:
        """Whether another try is refused."""
        return self._count(key) >= self._max_deaths

    def _count(self, key: bytes) -> int:
        n, last_s = self._deaths.get(key, (0, 0.0))
        return n if self._clock() - last_s < self._memory_s else 0
