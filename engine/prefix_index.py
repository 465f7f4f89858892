"""What the prefix cache knows beside the blocks themselves: which blocks follow a key, and which were lost lately."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

__all__ = ["PrefixIndex"]

NEWEST_FOLLOWERS = 16
"""How many blocks after one key are compared with a prompt: where very many follow, they mostly begin alike."""


class PrefixIndex:
    """Finds the block that begins as a prompt goes on, and says why a prompt's next block is not in the cache. It
    remembers `limit` keys that are gone, newest first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._followers: dict[bytes, dict[bytes, Sequence[int]]] = {}  # parent -> key -> the block's tokens
        self._parent: dict[bytes, bytes] = {}
        self._gone: OrderedDict[bytes, None] = OrderedDict()

    def add(self, parent: bytes, key: bytes, tokens: Sequence[int]) -> None:
        """A block with `key` and `tokens` is in the cache now, after `parent`, which is a block's key or a root."""
        self._parent[key] = parent
        self._followers.setdefault(parent, {})[key] = tokens

    def evict(self, key: bytes) -> None:
        """The block with `key` is not in the cache any more."""
        self._remember(key)
        parent = self._parent.pop(key, None)
        if parent is None:
            return
        followers = self._followers[parent]
        del followers[key]
        if not followers:
            del self._followers[parent]
            self._remember(parent)  # so that a root whose blocks are all gone is still known

    def nearest(self, parent: bytes, tokens: Sequence[int], *, whole: bool) -> tuple[bytes, int] | None:
        """The block after `parent` that has most of its beginning in common with `tokens`: its key, and how many.

        whole: only blocks of which all tokens are in common.
        """
        best, most = None, 0
        for key, content in islice(reversed(self._followers.get(parent, {}).items()), NEWEST_FOLLOWERS):
            n = _n_common(content, tokens)
            if n > most and (n == len(content) or not whole):
                best, most = key, n
        return None if best is None else (best, most)

    def was_evicted(self, key: bytes) -> bool:
        """Whether a key that is not in the cache was there, as far back as is remembered."""
        return key in self._gone

    def has_followers(self, parent: bytes) -> bool:
        """Whether any block after `parent` is or was in the cache, as far back as is remembered."""
        return parent in self._followers or parent in self._gone

    def _remember(self, key: bytes) -> None:
        self._gone[key] = None
        self._gone.move_to_end(key)
        if len(self._gone) > self._limit:
            self._gone.popitem(last=False)


def _n_common(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
