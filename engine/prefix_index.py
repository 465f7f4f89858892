"""What the prefix cache knows beside the blocks themselves: which keys follow a key, and which were lost lately."""

from collections import OrderedDict

__all__ = ["PrefixIndex"]


class PrefixIndex:
    """Answers why a prompt's next block is not in the cache. It remembers `limit` keys that are gone, newest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._followers: dict[bytes, set[bytes]] = {}
        self._parent: dict[bytes, bytes] = {}
        self._gone: OrderedDict[bytes, None] = OrderedDict()

    def add(self, parent: bytes, key: bytes) -> None:
        """A block with `key` is in the cache now; it follows `parent`, which is a block's key or a root."""
        self._parent[key] = parent
        self._followers.setdefault(parent, set()).add(key)

    def evict(self, key: bytes) -> None:
        """The block with `key` is not in the cache any more."""
        self._remember(key)
        parent = self._parent.pop(key)
        followers = self._followers[parent]
        followers.remove(key)
        if not followers:
            del self._followers[parent]
            self._remember(parent)  # so that a root whose blocks are all gone is still known

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
