"""Remembers which requests were in flight when the engine died, so that none of them may kill it a third time."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

__all__ = ["Suspects", "content_key"]


def content_key(*parts: object) -> bytes:
    """What a request asks for, as a key: two requests with equal parts (plain data and msgspec structs) share it."""
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


class Suspects:
    """Counts deaths by content. Who dies beside the culprit is suspected too, until one of its requests ends well."""

    def __init__(self, *, max_deaths: int = 2, max_entries: int = 4096) -> None:
        self._max_deaths, self._max_entries = max_deaths, max_entries
        self._deaths: OrderedDict[bytes, int] = OrderedDict()

    def note_death(self, in_flight: Iterable[bytes]) -> None:
        """The engine died while these were in flight."""
        for key in set(in_flight):
            self._deaths[key] = self._deaths.pop(key, 0) + 1
        while len(self._deaths) > self._max_entries:
            self._deaths.popitem(last=False)

    def clear(self, key: bytes) -> None:
        """A request of this content ended well."""
        self._deaths.pop(key, None)

    def is_poison(self, key: bytes) -> bool:
        """Whether another try is refused."""
        return self._deaths.get(key, 0) >= self._max_deaths
