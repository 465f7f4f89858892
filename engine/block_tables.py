"""Which blocks each request holds: found in the prefix cache, allocated, offered to it, and given back. No torch."""

from engine.blocks import BlockPool, extend_keys
from engine.request import Request

__all__ = ["BlockTables"]


class BlockTables:
    """Keeps the block tables of all requests of one model over its pool."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool

    def find(self, request: Request) -> int:
        """How many leading blocks of the request's tokens are in the prefix cache. Takes none of them."""
        pool = self.pool
        if not pool.prefix_cache:
            return 0
        # The last token is always computed, since its logits are what the request waits for.
        n_full = (len(request.tokens) - 1) // pool.block_size
        extend_keys(request.keys, request.root_key, request.tokens, n_full, pool.block_size)
        return pool.lookup(request.keys[:n_full])

    def place(self, request: Request, n_hits: int, reserve: int) -> bool:
        """Give a request the blocks of all its tokens, the first `n_hits` of them shared.

        False, and then nothing is taken, where that would leave fewer than `reserve` blocks free.
        """
        pool, hits = self.pool, request.keys[:n_hits]
        missing = self.missing(request, len(request.tokens)) - n_hits
        if missing + reserve > pool.n_free - pool.n_idle(hits):
            return False
        if hits:
            request.blocks = pool.acquire(hits)
            request.computed = n_hits * pool.block_size
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
            request.blocks[index] = pool.register(request.blocks[index], request.keys[index])
        request.registered = n_full

    def drop(self, request: Request) -> None:
        """Give all blocks of the request back."""
        self.pool.release(request.blocks)
        request.blocks = []
        request.computed = request.registered = 0
