"""Which blocks each request holds: found in the prefix cache, allocated, offered to it, and given back. No torch.

    prompt      | A A A A | B B B B | C C d d | d          block_size 4
    cached      | A A A A | B B B B | C C c c |
    found         shared    shared    copied    computed: d d d

Full blocks of equal tokens are shared. A block that only begins with the same tokens is copied, and its copy written on
from there. So that the next turn of a conversation finds all of the last one, the unfilled block at a request's end is
offered, too.

A request has one table for each KV group. In a group with a window, blocks wholly behind it are given back while the
request runs, and a prefix hit needs only the blocks that the next token still sees:

    computed up to   |----|----|----|----|--            group without a window   7  3  9  2  8
    window               . . . . . .|______|            group with a window     -1 -1 -1  5  4
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from engine.blocks import BlockPool, block_key, extend_keys
from engine.kv_groups import NULL_BLOCK, KVGroup
from engine.request import CacheMiss, Request

__all__ = ["ONE_GROUP", "BlockTables", "PrefixHit"]

ONE_GROUP = (KVGroup(None, (0,)),)


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

    groups: those without a window first. max_chunk: most tokens that one request gets in a step. splits_blocks: whether
    what the runner keeps with a block holds for any beginning of it. The sums of pooled states do not: they are over
    all of its tokens.
    """

    def __init__(
        self,
        pool: BlockPool,
        groups: Sequence[KVGroup] = ONE_GROUP,
        *,
        max_chunk: int,
        splits_blocks: bool = True,
    ) -> None:
        self.pool, self.groups = pool, tuple(groups)
        self._windowed = [g for g, group in enumerate(groups) if group.window is not None]
        self._max_chunk, self._splits_blocks = max_chunk, splits_blocks
        self._copies: list[tuple[int, int]] = []
        self._announced: set[bytes] = set()  # keys of blocks that the step which is being made fills: not to be copied

    def longest(self, limit: int) -> int:
        """Most tokens, up to `limit`, that a request may have which has the whole pool to itself."""
        return bisect_right(range(1, limit + 1), self.pool.n_blocks, key=self._most_blocks)

    def find(self, request: Request) -> PrefixHit:
        """What the prefix cache holds of the request's tokens. Takes none of it."""
        pool, keys = self.pool, request.keys
        if not pool.prefix_cache:
            return PrefixHit(0, CacheMiss.DISABLED)
        # The last token is always computed, since its logits are what the request waits for.
        n_full = (len(request.tokens) - 1) // pool.block_size
        extend_keys(keys, request.root_key, request.tokens, n_full, pool.block_size)
        n_hits = self._n_hits(keys[:n_full])
        source, n_copied = self._nearest(request, n_hits)
        if n_hits * pool.block_size + n_copied == len(request.tokens) - 1:
            miss = CacheMiss.NONE
        elif n_hits < n_full and self._was_evicted(keys, n_hits + 1):
            miss = CacheMiss.EVICTED
        elif n_hits == 0 and not pool.index.has_followers(request.root_key):
            miss = CacheMiss.COLD
        else:
            miss = CacheMiss.DIVERGED
        return PrefixHit(n_hits, miss, source, n_copied)

    def place(self, request: Request, hit: PrefixHit | None, reserve: int) -> bool:
        """Give a request the blocks of all its tokens, beginning with those of the hit. hit None: it has blocks.

        Groups with a window get those of its first chunk: the others follow as these are given back. False, and then
        nothing is taken, where that would leave fewer than `reserve` blocks of each group free. What has to be copied
        for it is up to the next step (`take_copies`).
        """
        pool, size = self.pool, self.pool.block_size
        computed = request.computed if hit is None else hit.n_blocks * size + hit.n_copied
        ends = [self._placed_end(group, len(request.tokens), computed) for group in self.groups]
        if hit is None:
            missing = [
                pool.blocks_for(end) - len(table) for end, table in zip(ends, self._tables(request), strict=True)
            ]
            hits: list[list[bytes]] = [[] for _ in self.groups]
        else:
            missing = [pool.blocks_for(end) - hit.n_blocks for end in ends]
            hits = [self._needed(g, request.keys, hit.n_blocks, computed) for g in range(len(self.groups))]
        n_missing = sum(max(0, n) for n in missing)
        n_idle = sum(map(pool.n_idle, hits))
        if n_missing + reserve * len(self.groups) > pool.n_free - n_idle:
            return False
        if hit is not None:
            sources = [pool.source(_in_group(hit.source, g)) for g in range(len(self.groups)) if hit.n_copied]
            tables = [[NULL_BLOCK] * (hit.n_blocks - len(keys)) + pool.acquire(keys) for keys in hits]
            request.blocks, request.other_blocks = tables[0], tables[1:]
            request.computed, request.registered = computed, hit.n_blocks
        for table, n in zip(self._tables(request), missing, strict=True):
            table.extend(pool.allocate(max(0, n)))
        if hit is not None:
            self._copies += zip(sources, (table[hit.n_blocks] for table in tables), strict=False)
        request.frozen_tables = ()
        return True

    def take_copies(self) -> tuple[tuple[int, int], ...]:
        """What the step that begins now has to copy before it computes, as (source, target). What it was announced to
        fill may be copied by later ones.
        """
        copies = tuple(self._copies)
        self._copies.clear()
        self._announced.clear()
        return copies

    def missing(self, request: Request, end: int) -> int:
        """How many blocks more the request needs to hold `end` tokens."""
        n_blocks = self.pool.blocks_for(end)
        return sum(max(0, n_blocks - len(table)) for table in self._tables(request))

    def grow(self, request: Request, end: int) -> None:
        """Append the blocks that are missing for `end` tokens. Raises NoFreeBlocks."""
        n_blocks = self.pool.blocks_for(end)
        for table in self._tables(request):
            if len(table) < n_blocks:
                table.extend(self.pool.allocate(n_blocks - len(table)))
                request.frozen_tables = ()

    def shrink(self, request: Request) -> None:
        """Give back the blocks that hold none of the request's tokens: those of a draft that was rejected."""
        n_blocks = self.pool.blocks_for(len(request.tokens))
        for table in self._tables(request):
            if len(table) > n_blocks:
                self.pool.release(table[n_blocks:])
                del table[n_blocks:]
                request.frozen_tables = ()

    def announce(self, request: Request, end: int) -> None:
        """The step which is being made computes the request up to `end`: let others share what it fills."""
        n_full = min(end, len(request.tokens)) // self.pool.block_size
        if n_full > request.registered and self.pool.prefix_cache:
            extend_keys(request.keys, request.root_key, request.tokens, n_full, self.pool.block_size)
            for g, table in enumerate(self._tables(request)):
                for index in range(request.registered, n_full):
                    key = _in_group(request.keys[index], g)
                    self.pool.announce(table[index], key)
                    self._announced.add(key)

    def frozen(self, request: Request) -> tuple[tuple[int, ...], ...]:
        """The request's block tables for the rows of a plan, made anew only where they changed."""
        if not request.frozen_tables:
            request.frozen_tables = tuple(map(tuple, self._tables(request)))
        return request.frozen_tables

    def advance(self, request: Request) -> None:
        """After a step: offer the blocks that are full now to the prefix cache, give back those behind the windows."""
        pool = self.pool
        n_full = request.computed // pool.block_size
        if n_full > request.registered:
            if pool.prefix_cache:
                extend_keys(request.keys, request.root_key, request.tokens, n_full, pool.block_size)
                for index in range(request.registered, n_full):
                    self._offer(request, index, (index + 1) * pool.block_size)
            request.registered = n_full
        for g in self._windowed:
            self._trim(request, g)

    def drop(self, request: Request, *, in_flight: bool = False) -> None:
        """Give all blocks of the request back. in_flight: a step that is not committed yet writes to them.

        What that step writes lies behind the tokens computed, so it does not matter to who copies those, but to sums
        over the whole block.
        """
        index, n_rest = divmod(request.computed, self.pool.block_size)
        awaited = {target for _, target in self._copies}  # what is to be copied there is not there yet
        is_whole = awaited.isdisjoint(table[index] for table in self._tables(request) if index < len(table))
        if n_rest and is_whole and self.pool.prefix_cache and (self._splits_blocks or not in_flight):
            self._offer(request, index, request.computed)
        if self._copies:  # it leaves again before the step that it was placed for
            held = {block for table in self._tables(request) for block in table}
            self._copies = [(source, target) for source, target in self._copies if target not in held]
        for table in self._tables(request):
            self.pool.release([block for block in table if block != NULL_BLOCK] if self._windowed else table)
        request.blocks, request.other_blocks, request.frozen_tables = [], [], ()
        request.computed = request.registered = 0

    def check_integrity(self, requests: Iterable[Request], guests: Iterable[Request] = ()) -> None:
        """Raise RuntimeError unless every block is accounted for, and every table holds what its window shows. guests:
        requests whose tokens after `n_prompt` may be taken back, so that nothing behind those windows is missing."""
        live = list[list[int]]()
        ends = [*((request, request.computed) for request in requests), *((guest, guest.n_prompt) for guest in guests)]
        for request, end in ends:
            for group, table in zip(self.groups, self._tables(request), strict=False):
                first = group.first_kept(end) // self.pool.block_size
                live.append(table[first:])
                if NULL_BLOCK in live[-1] or any(block != NULL_BLOCK for block in table[:first]):
                    raise RuntimeError(
                        f"request {request.id}: blocks from {first} on are visible, its table is {table}"
                    )
        self.pool.check_integrity(live)

    def _tables(self, request: Request) -> list[list[int]]:
        return [request.blocks, *request.other_blocks] if request.other_blocks else [request.blocks]

    def _most_blocks(self, n_tokens: int) -> int:
        """How many blocks a request of so many tokens holds at most, over all groups."""
        blocks_for = self.pool.blocks_for
        most = [
            blocks_for(n_tokens)
            if group.window is None
            else min(blocks_for(n_tokens), blocks_for(max(group.window, 2) - 1 + self._max_chunk) + 1)
            for group in self.groups
        ]
        return sum(most)

    def _placed_end(self, group: KVGroup, n_tokens: int, computed: int) -> int:
        return n_tokens if group.window is None else min(n_tokens, computed + self._max_chunk)

    def _n_hits(self, keys: Sequence[bytes]) -> int:
        """The longest prefix, in blocks, of which the cache holds all that the token after it sees."""
        bound = len(keys)
        for g in range(len(self.groups) - len(self._windowed)):
            bound = self.pool.lookup([_in_group(key, g) for key in keys[:bound]])
        if all(map(self.pool.holds, self._needed_in_windows(keys, bound))):
            return bound
        best, runs = 0, [0] * len(self._windowed)  # runs: how many blocks are held without a gap
        for n, key in enumerate(keys[:bound], start=1):
            for i, g in enumerate(self._windowed):
                runs[i] = runs[i] + 1 if self.pool.holds(_in_group(key, g)) else 0
            if all(
                run >= n - self.groups[g].first_kept(n * self.pool.block_size) // self.pool.block_size
                for run, g in zip(runs, self._windowed, strict=True)
            ):
                best = n
        return best

    def _needed(self, g: int, keys: Sequence[bytes], n_blocks: int, computed: int) -> list[bytes]:
        """The keys, in a group, of those of the first `n_blocks` that a token at position `computed` sees."""
        first = self.groups[g].first_kept(computed) // self.pool.block_size
        return [_in_group(key, g) for key in keys[first:n_blocks]]

    def _nearest(self, request: Request, n_hits: int) -> tuple[bytes, int]:
        """Which block to copy for the one after the hits: its key, and how many of its tokens are of use."""
        start = n_hits * self.pool.block_size
        rest = request.tokens[start : min(start + self.pool.block_size, len(request.tokens) - 1)]
        found = self.pool.index.nearest(_parent(request, n_hits), rest, whole=not self._splits_blocks)
        if found is None:
            return b"", 0
        keys = [_in_group(found[0], g) for g in range(len(self.groups))]
        is_there = all(self.pool.holds(key) and key not in self._announced for key in keys)
        return found if is_there else (b"", 0)

    def _was_evicted(self, keys: Sequence[bytes], n_blocks: int) -> bool:
        """Whether a hit of `n_blocks` lacks a block that the cache once had."""
        last = (_in_group(keys[n_blocks - 1], g) for g in range(len(self.groups)))
        needed = chain(last, self._needed_in_windows(keys, n_blocks))
        return any(not self.pool.holds(key) and self.pool.index.was_evicted(key) for key in needed)

    def _needed_in_windows(self, keys: Sequence[bytes], n_blocks: int) -> Iterator[bytes]:
        """The keys of what a hit of `n_blocks` needs in the groups with a window."""
        position = n_blocks * self.pool.block_size
        return (key for g in self._windowed for key in self._needed(g, keys, n_blocks, position))

    def _trim(self, request: Request, g: int) -> None:
        table = self._tables(request)[g]
        end = first = self.groups[g].first_kept(request.computed) // self.pool.block_size
        while first and table[first - 1] != NULL_BLOCK:
            first -= 1
        if first < end:
            self.pool.release(table[first:end])
            table[first:end] = [NULL_BLOCK] * (end - first)
            request.frozen_tables = ()

    def _offer(self, request: Request, index: int, end: int) -> None:
        """Register the blocks that hold the request's tokens up to `end` and will not be written again."""
        size, parent = self.pool.block_size, _parent(request, index)
        tokens = array("q", request.tokens[index * size : end])  # a quarter of a tuple's size, and there may be many
        is_full = len(tokens) == size
        key = request.keys[index] if is_full else block_key(parent, tokens)
        for g, table in enumerate(self._tables(request)):
            if not is_full and self.pool.holds(_in_group(key, g)):
                continue  # the request leaves, so it has no use for sharing the block of one that left the same
            content = (parent, tokens) if g == 0 else ()
            block = self.pool.register(table[index], _in_group(key, g), *content)
            if block != table[index]:
                table[index], request.frozen_tables = block, ()


def _parent(request: Request, index: int) -> bytes:
    """The key that the request's block `index` follows."""
    return request.keys[index - 1] if index else request.root_key


def _in_group(key: bytes, g: int) -> bytes:
    """A block's key in group `g`: blocks of equal tokens in different groups hold different layers."""
    return key + bytes((g,)) if g else key
