"""Requests that use a model's pages for another one's sake, as long as nobody else needs them. No torch.

A draft model keeps the keys and values of what it drafts for in its own pages, between those of its own requests: it
finds there what routing left in the prefix cache, and whatever it has is the first to go when its own requests need
room.
"""

from collections.abc import Iterator

from engine.block_tables import BlockTables
from engine.blocks import BlockPool
from engine.plan import Row
from engine.request import Request

__all__ = ["Guests"]


class Guests:
    """The guests of one model's pool. A guest's `n_prompt` tells how many of its tokens were computed in ordinary rows:
    only those are offered to the prefix cache, since what is a guess may be another one the next time."""

    def __init__(self, tables: BlockTables, pool: BlockPool) -> None:
        self._tables, self._pool = tables, pool
        self._requests: dict[str, Request] = {}  # those that have blocks, the one used longest ago first

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())

    def n_cached(self, request: Request) -> int:
        """How many of the tokens of a request without blocks the prefix cache holds. Takes none of it."""
        hit = self._tables.find(request)
        return hit.n_blocks * self._pool.block_size + hit.n_copied

    def place(self, request: Request, reserve: int) -> bool:
        """Give a guest the blocks of all its tokens, those of the prefix cache first; False, and nothing is taken,
        where fewer than `reserve` would be left. What has to be copied for it is up to `take_copies`. No guest ever
        takes from another: they would take it from each other for ever."""
        if not self._tables.place(request, self._tables.find(request), reserve):
            return False
        request.n_prompt = request.computed
        self._requests[request.id] = request
        return True

    def grow(self, request: Request, end: int, reserve: int) -> bool:
        """Let a guest hold `end` tokens; False where fewer than `reserve` blocks would be left."""
        missing = self._tables.missing(request, end)
        if missing and missing + reserve > self._pool.n_free:
            return False
        if missing:
            self._tables.grow(request, end)
        self._requests[request.id] = self._requests.pop(request.id)
        return True

    def offer(self, request: Request) -> None:
        """Share the blocks that are full; all of its tokens so far were computed in ordinary rows."""
        request.n_prompt = request.computed
        self._tables.advance(request)

    def row(self, request: Request, n: int, *, n_logits: int, is_draft: bool) -> Row:
        """The next n tokens of a guest as a row of a step."""
        block_table, *others = self._tables.frozen(request)
        start = request.computed
        tokens = tuple(request.tokens[start : start + n])
        return Row(request.id, start, tokens, block_table, n_logits, other_tables=tuple(others), is_draft=is_draft)

    def take_copies(self) -> tuple[tuple[int, int], ...]:
        """What the next step has to copy before it computes: see BlockTables."""
        return self._tables.take_copies()

    def leave(self, request: Request) -> None:
        """Give all blocks of a guest back."""
        if self._requests.pop(request.id, None) is not None:
            request.computed = min(request.computed, request.n_prompt)
            self._tables.drop(request)

    def reclaim(self) -> bool:
        """Take the blocks of the guest that was used longest ago; False where there is none."""
        request = next(iter(self._requests.values()), None)
        if request is not None:
            self.leave(request)
        return request is not None
