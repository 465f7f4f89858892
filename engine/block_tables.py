"""Which blocks each request holds: found in the prefix cache, allocated, offered to it, and given back. No torch.

    prompt      | A A A A | B B B B | C C d d | d          block_size 4
    cached      | A A A A | B B B B | C C c c |
    found         shared    shared    copied    computed: d d d

Full blocks of equal tokens are shared. A block that only begins with the same tokens is copied, and its copy written on
from there. So that the next turn of a conversation finds all of the last one, the unfilled block at a request's end is
offered, too.
"""

from dataclasses import dataclass

from engine.blocks import BlockPool, block_key, extend_keys
from engine.request import CacheMiss, Request

__all__ = ["BlockTables", "PrefixHit"]


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """What the prefix cache holds of a request: its first n_blocks, and of the block after them the first n_copied
    tokens, in the block of key `source`. miss: why it does not hold more.
    """

    n_blocks: int
    miss: CacheMiss
    source: bytes = b""
    n_copied: int = 0


class BlockTables:
    """Keeps the block tables of all requests of one model over its pool.

    splits_blocks: whether what the runner keeps with a block holds for any beginning of it. The sums of pooled states
    do not: they are over all of its tokens.
    """

    def __init__(self, pool: BlockPool, *, splits_blocks: bool = True) -> None:
        self.pool, self._splits_blocks = pool, splits_blocks
        self._copies: list[tuple[int, int]] = []

    def find(self, request: Request) -> PrefixHit:
        """What the prefix cache holds of the request's tokens. Takes none of it."""
        pool, keys = self.pool, request.keys
        if not pool.prefix_cache:
            return PrefixHit(0, CacheMiss.DISABLED)
        # The last token is always computed, since its logits are what the request waits for.
        n_full = (len(request.tokens) - 1) // pool.block_size
        extend_keys(keys, request.root_key, request.tokens, n_full, pool.block_size)
        n_hits = pool.lookup(keys[:n_full])
        start = n_hits * pool.block_size
        rest = request.tokens[start : min(start + pool.block_size, len(request.tokens) - 1)]
        parent = _parent(request, n_hits)
        source, n_copied = pool.index.nearest(parent, rest, whole=not self._splits_blocks) or (b"", 0)
        if start + n_copied == len(request.tokens) - 1:
            miss = CacheMiss.NONE
        elif n_hits < n_full and pool.index.was_evicted(keys[n_hits]):
            miss = CacheMiss.EVICTED
        elif n_hits == 0 and not pool.index.has_followers(parent):
            miss = CacheMiss.COLD
        else:
            miss = CacheMiss.DIVERGED
        return PrefixHit(n_hits, miss, source, n_copied)

    def place(self, request: Request, hit: PrefixHit | None, reserve: int) -> bool:
        """Give a request the blocks of all its tokens, beginning with those of the hit. hit None: it has blocks.

        False, and then nothing is taken, where that would leave fewer than `reserve` blocks free. What has to be copied
        for it is up to the next step (`take_copies`).
        """
        pool = self.pool
        hits = [] if hit is None else request.keys[: hit.n_blocks]
        missing = self.missing(request, len(request.tokens)) - len(hits)
        if missing + reserve > pool.n_free - pool.n_idle(hits):
            return False
        source = pool.source(hit.source) if hit is not None and hit.n_copied else None
        if hit is not None:
            request.blocks = pool.acquire(hits)
            request.computed = hit.n_blocks * pool.block_size + hit.n_copied
        request.blocks.extend(pool.allocate(max(missing, 0)))
        if source is not None:
            self._copies.append((source, request.blocks[len(hits)]))
        return True

    def take_copies(self) -> tuple[tuple[int, int], ...]:
        """What the next step has to copy before it computes, as (source, target)."""
        copies = tuple(self._copies)
        self._copies.clear()
        return copies

    def missing(self, request: Request, end: int) -> int:
        """How many blocks more the request needs to hold `end` tokens; negative where it has more than that."""
        return self.pool.blocks_for(end) - len(request.blocks)

    def grow(self, request: Request, n_blocks: int) -> None:
        """Append blocks, as many as `missing` said. Raises NoFreeBlocks."""
        if n_blocks > 0:
            request.blocks.extend(self.pool.allocate(n_blocks))

    def register(self, request: Request) -> None:
        """Offer the blocks that are full now to the prefix cache."""
        pool = self.pool
        n_full = request.computed // pool.block_size
        if not pool.prefix_cache or n_full == request.registered:
            return
        extend_keys(request.keys, request.root_key, request.tokens, n_full, pool.block_size)
        for index in range(request.registered, n_full):
            self._offer(request, index, (index + 1) * pool.block_size)
        request.registered = n_full

    def drop(self, request: Request, *, in_flight: bool = False) -> None:
        """Give all blocks of the request back. in_flight: a step that is not committed yet writes to them."""
        index, n_rest = divmod(request.computed, self.pool.block_size)
        if n_rest and self.pool.prefix_cache and not in_flight:
            self._offer(request, index, request.computed)
        self.pool.release(request.blocks)
        request.blocks = []
        request.computed = request.registered = 0

    def _offer(self, request: Request, index: int, end: int) -> None:
        """Register a block that holds the request's tokens up to `end` and will not be written again."""
        size, parent = self.pool.block_size, _parent(request, index)
        tokens = tuple(request.tokens[index * size : end])
        key = block_key(parent, tokens) if len(tokens) < size else request.keys[index]
        request.blocks[index] = self.pool.register(request.blocks[index], key, parent, tokens)


def _parent(request: Request, index: int) -> bytes:
    """The key that the request's block `index` follows."""
    return request.keys[index - 1] if index else request.root_key
