"""Which blocks each request holds: found in the prefix cache, allocated, offered to it, and given back. No torch."""

from dataclasses import dataclass

from engine.blocks import BlockPool, extend_keys
from engine.request import CacheMiss, Request

__all__ = ["BlockTables", "PrefixHit"]


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """How many leading blocks of a request the prefix cache holds, and why it does not hold more."""

    n_blocks: int
    miss: CacheMiss


class BlockTables:
    """Keeps the block tables of all requests of one model over its pool."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool

    def find(self, request: Request) -> PrefixHit:
        """What the prefix cache holds of the request's tokens. Takes none of it."""
        pool, keys = self.pool, request.keys
        if not pool.prefix_cache:
            return PrefixHit(0, CacheMiss.DISABLED)
        # The last token is always computed, since its logits are what the request waits for.
        n_full = (len(request.tokens) - 1) // pool.block_size
        extend_keys(keys, request.root_key, request.tokens, n_full, pool.block_size)
        n_hits = pool.lookup(keys[:n_full])
        if n_hits * pool.block_size == len(request.tokens) - 1:
            return PrefixHit(n_hits, CacheMiss.NONE)
        if n_hits < n_full and pool.index.was_evicted(keys[n_hits]):
            return PrefixHit(n_hits, CacheMiss.EVICTED)
        is_cold = n_hits == 0 and not pool.index.has_followers(request.root_key)
        return PrefixHit(n_hits, CacheMiss.COLD if is_cold else CacheMiss.DIVERGED)

    def place(self, request: Request, hit: PrefixHit | None, reserve: int) -> bool:
        """Give a request the blocks of all its tokens, beginning with those of the hit. hit None: it has blocks.

        False, and then nothing is taken, where that would leave fewer than `reserve` blocks free.
        """
        pool = self.pool
        hits = [] if hit is None else request.keys[: hit.n_blocks]
        missing = self.missing(request, len(request.tokens)) - len(hits)
        if missing + reserve > pool.n_free - pool.n_idle(hits):
            return False
        if hits:
            request.blocks = pool.acquire(hits)
            request.computed = len(hits) * pool.block_size
        request.blocks.extend(pool.allocate(max(missing, 0)))
        return True

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
            parent = request.keys[index - 1] if index else request.root_key
            request.blocks[index] = pool.register(request.blocks[index], request.keys[index], parent)
        request.registered = n_full

    def drop(self, request: Request) -> None:
        """Give all blocks of the request back."""
        self.pool.release(request.blocks)
        request.blocks = []
        request.computed = request.registered = 0
