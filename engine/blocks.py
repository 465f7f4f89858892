"""Which page of the KV cache belongs to whom: reference counts, chained content keys, and LRU reuse. No torch.

A block is in exactly one of four places:

    blank    refs 0, no key            a stack: reused first, since nothing is lost by it
    cached   refs 0, a key             an LRU: a prefix hit revives it, an allocation evicts the oldest
    used     refs > 0, key or not      referenced by one or more requests
    limbo    refs 0, freed while a step is unfinished; it may still be written, so it goes to its list at `end_step`

Keys are a SHA-256 chain (never Python's `hash`: a collision would leak one tenant's text into another's answer), so
equal keys mean equal tokens from position 0 on, for the same tenant, model and KV format. A request's blocks are
released from the tail, and a request that references a block references all its ancestors, so the LRU always meets
leaves before their roots.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from engine.prefix_index import PrefixIndex

__all__ = ["BlockPool", "NoFreeBlocks", "block_key", "extend_keys", "root_key"]


class NoFreeBlocks(RuntimeError):
    """Fewer blocks are free than were asked for: preempt or release something first."""


def root_key(*, salt: str, fingerprint: str, kv_format: str, position_scheme: str = "") -> bytes:
    """The parent key of a prompt's first block: it scopes every key below it to a tenant, a model, a KV format and a
    position scheme.

    position_scheme: what decides how positions are encoded in the cached keys beyond the fingerprinted configuration,
    such as rotary parameters that were frozen when the model was loaded.
    """
    digest = hashlib.sha256()
    for part in (salt, fingerprint, kv_format, position_scheme):
        encoded = part.encode("utf-8", "surrogatepass")  # a client's salt may hold anything JSON can
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.digest()


def extend_keys(keys: list[bytes], root: bytes, tokens: Sequence[int], n_full: int, block_size: int) -> None:
    """Append to `keys` what is missing of the first `n_full` blocks of `tokens`; each block is hashed once in its
    life.
    """
    for index in range(len(keys), n_full):
        parent = keys[index - 1] if index else root
        keys.append(block_key(parent, tokens[index * block_size : (index + 1) * block_size]))


def block_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a block of these tokens after the one of key `parent`."""
    return hashlib.sha256(parent + array("q", tokens).tobytes()).digest()


class BlockPool:
    """Accounts for `n_blocks` pages of `block_size` tokens. Every operation is O(1) per block.

    prefix_cache False forgets keys at once, so that every prompt is computed in full.
    """

    def __init__(self, n_blocks: int, block_size: int, *, prefix_cache: bool = True) -> None:
        if n_blocks < 1 or block_size < 1:
            raise ValueError(f"n_blocks is {n_blocks}, block_size is {block_size}: use 1 or more of each")
        self.n_blocks, self.block_size, self.prefix_cache = n_blocks, block_size, prefix_cache
        self._refs = [0] * n_blocks
        self._key: list[bytes | None] = [None] * n_blocks
        self._by_key: dict[bytes, int] = {}
        self._blank = list(range(n_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._limbo: OrderedDict[int, int] = OrderedDict()  # block -> newest step that may write or read it
        self._open_steps: OrderedDict[int, None] = OrderedDict()
        self.evictions = 0
        self.index = PrefixIndex(limit=4 * n_blocks)

    @property
    def n_free(self) -> int:
        """Blocks that `allocate` can hand out now, cached ones included."""
        return len(self._blank) + len(self._cached)

    @property
    def n_used(self) -> int:
        """Blocks that a request references or an unfinished step may touch."""
        return self.n_blocks - self.n_free

    def blocks_for(self, n_tokens: int) -> int:
        """How many blocks hold `n_tokens` tokens."""
        return -(-n_tokens // self.block_size)

    def lookup(self, keys: Sequence[bytes]) -> int:
        """How many leading blocks of `keys` are in the cache. Takes no reference."""
        for index, key in enumerate(keys):
            if key not in self._by_key:
                return index
        return len(keys)

    def holds(self, key: bytes) -> bool:
        """Whether a block with this key is in the cache."""
        return key in self._by_key

    def n_idle(self, keys: Sequence[bytes]) -> int:
        """How many of these cached blocks count as free now, and would not once acquired."""
        return sum(self._by_key[key] in self._cached for key in keys)

    def acquire(self, keys: Sequence[bytes]) -> list[int]:
        """Reference the cached blocks of `keys`, all of which `lookup` found."""
        blocks = [self._by_key[key] for key in keys]
        for block in blocks:
            self._reference(block)
        return blocks

    def source(self, key: bytes) -> int:
        """The cached block of `key`, to copy from in the next step. Takes no reference, since whatever writes the block
        later does so after that copy; but the block is young again.
        """
        block = self._by_key[key]
        if block in self._cached:
            self._cached.move_to_end(block)
        return block

    def allocate(self, n: int) -> list[int]:
        """`n` writable blocks with one reference each. Raises NoFreeBlocks, and then takes none."""
        if n > self.n_free:
            raise NoFreeBlocks(f"{n} blocks asked for, {self.n_free} of {self.n_blocks} are free")
        blocks = []
        for _ in range(n):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _ = self._cached.popitem(last=False)
                self._forget(block)
                self.evictions += 1
            self._refs[block] = 1
            blocks.append(block)
        return blocks

    def announce(self, block: int, key: bytes) -> None:
        """Say that the step which is being made will fill `block` with what `key` stands for: requests that join the
        same step may share it, since a step writes all its keys and values before it reads any.
        """
        if self.prefix_cache and self._key[block] is None and key not in self._by_key:
            self._key[block] = key
            self._by_key[key] = block

    def register(self, block: int, key: bytes, parent: bytes = b"", tokens: Sequence[int] = ()) -> int:
        """Say that `block` holds what `key` stands for, `tokens` after `parent`, and is not written any more; returns
        the block to use from now on. Without tokens the block is found by its key only.

        Where another block holds the same content already, the caller's reference moves to that one and its own block
        is released: equal prompts that were computed side by side end up sharing memory.
        """
        self.announce(block, key)
        twin = self._by_key.get(key, block)
        if twin == block:
            if tokens and self.prefix_cache:
                self.index.add(parent, key, tokens)
            return block
        self._reference(twin)
        self.release([block])
        return twin

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each block of a table; the tail goes first, so that leaves are reused before roots."""
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                if self._open_steps:
                    self._limbo[block] = next(reversed(self._open_steps))
                else:
                    self._put_back(block)

    def begin_step(self, step_id: int) -> None:
        """From now on a freed block may still be in use on the device, until `end_step` of this id."""
        self._open_steps[step_id] = None

    def end_step(self, step_id: int) -> None:
        """The step is over: blocks freed during it, and held back by no later step, can be reused."""
        self._open_steps.pop(step_id, None)
        # No step opened before the oldest one still open can touch a block any more.
        oldest = next(iter(self._open_steps), None)
        for block in [b for b, step in self._limbo.items() if oldest is None or step < oldest]:
            del self._limbo[block]
            self._put_back(block)

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Raise RuntimeError unless every block is accounted for exactly once. tables: the block table of each live
        request.
        """
        counted = [0] * self.n_blocks
        for table in tables:
            for block in table:
                counted[block] += 1
        places: list[int] = [
            *self._blank,
            *self._cached,
            *self._limbo,
            *(b for b, refs in enumerate(self._refs) if refs),
        ]
        faults = []
        if sorted(places) != list(range(self.n_blocks)):
            faults.append("some block is in no place, or in two")
        if counted != self._refs:
            faults.append(f"reference counts {self._refs} differ from the block tables' {counted}")
        if any(self._key[block] is not None for block in self._blank) or any(
            self._key[b] is None for b in self._cached
        ):
            faults.append("a blank block has a key, or a cached one has none")
        if {key: block for block, key in enumerate(self._key) if key is not None} != self._by_key:
            faults.append("the key map and the blocks' keys differ")
        if self._limbo and not self._open_steps:
            faults.append("blocks wait for a step that is over")
        if faults:
            raise RuntimeError("block accounting is broken: " + "; ".join(faults))

    def _reference(self, block: int) -> None:
        if self._refs[block] == 0:
            self._cached.pop(block, None)
            self._limbo.pop(block, None)
        self._refs[block] += 1

    def _put_back(self, block: int) -> None:
        if self._key[block] is None:
            self._blank.append(block)
        else:
            self._cached[block] = None

    def _forget(self, block: int) -> None:
        key = self._key[block]
        if key is not None:
            del self._by_key[key]
            self._key[block] = None
            self.index.evict(key)
