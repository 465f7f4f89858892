"""Paged attention on a GPU: prompt chunks, decodes and drafts to verify in one launch, and one that merges what was cut
up. attention_plan makes the work list, attention_kernels has the bodies."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels.attention_kernels import attend, merge
from kernels.attention_plan import (
    ITEM_FIELDS,
    MERGE_FIELDS,
    MERGE_LANES,
    SPLIT_UNIT,
    Launch,
    Plan,
    Policy,
    TableRows,
    check_trees,
    plan_work,
    tree_fields,
)
from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec
from kernels.quantized_pages import FORMATS, SCALE_BYTES, page_rows
from kernels.staging import Field, Staging

__all__ = ["HOPPER", "PagedAttention", "Tile", "attend_constants", "choose_tile", "merge_constants", "rows_of_item"]

LOG2_E = 1.4426950408889634
HOPPER = 90
"""The capability (sm_90) from which tensor cores read their operands from shared memory."""
FP8_CAPABILITY = 89
LARGEST_HEAD = 256
MOST_ROWS = 128
"""Rows, as (query, head of a group), that an item has at most: an accumulator of more does not fit the registers."""
INVARIANT_ROWS = 64
INVARIANT_SPLIT = 512
"""Keys of a range where results must not depend on the batch."""
PARTIAL_BYTES = 256 << 20
"""Of partial results, that one launch writes at most."""
CPU_PROGRAMS = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program computes at once: BLOCK_M rows by BLOCK_N keys; its warps, and stages of its software pipeline."""

    block_m: int
    block_n: int
    warps: int
    stages: int


def rows_of_item(group: int, most_queries: int, is_invariant: bool) -> int:
    """Rows of an item, a power of two from 16 (the least that a tensor core takes) to MOST_ROWS. Raises ValueError for
    a group that is larger."""
    if group > MOST_ROWS:
        raise ValueError(f"{group} query heads share a KV head: at most {MOST_ROWS} can")
    rows = INVARIANT_ROWS if is_invariant else min(MOST_ROWS, most_queries * group)
    return max(16, 1 << (max(rows, group) - 1).bit_length())


def choose_tile(rows: int, head_dim: int, q_dtype: torch.dtype, page_dtype: torch.dtype, capability: int) -> Tile:
    """The tile for items of so many rows: what compiles without spilling registers (`python -m kernels.aot`).

    Decoding waits for memory: 16 kB each of K and V in every stage of the pipeline, three stages, and two or three
    programs on a multiprocessor keep well over 100 kB on their way (Little's law: 4.8 TB/s for 0.7 us need 25 kB for
    each of 132 multiprocessors). A chunk of a prompt waits for the tensor cores, and takes as many rows as registers
    hold.
    """
    block_d = _block_d(head_dim)
    if q_dtype == torch.float32:  # for parity, not for speed: no tensor cores, and operands in registers
        return Tile(16, max(16, min(64, 2048 // block_d)), 4, 2)
    is_hopper, is_wide, is_quantized = capability >= HOPPER, block_d > 128, page_dtype in FORMATS
    block_n = max(32, min(128, (8192 if is_hopper else 4096) // block_d))
    if rows > 16 and is_quantized:  # what is read and what it is widened to lie in registers together
        block_n = 32
    if rows < 64:
        if is_hopper or is_wide:
            return Tile(rows, block_n, 4, 3)
        return Tile(rows, block_n, 8 if rows == 32 else 4, 4)
    if is_wide:
        return Tile(64, 16, 8, 2) if is_quantized else Tile(rows if is_hopper else 64, 32, 8, 2)
    return Tile(rows, min(64, block_n), rows // 16, 3)


def attend_constants(
    spec: AttentionSpec, rows: int, tile: Tile, page_dtype: torch.dtype, block_size: int, *,
    has_trees: bool, has_sinks: bool, is_invariant: bool,
) -> dict[str, Any]:  # fmt: skip
    """The constants of a launch of `attend`."""
    group = spec.n_heads // spec.n_kv_heads
    return {
        "GROUP": group, "KV_HEADS": spec.n_kv_heads, "HEAD_DIM": spec.head_dim, "BLOCK_D": _block_d(spec.head_dim),
        "PAGE": block_size, "PAGE_ROWS": page_rows(block_size, spec.head_dim, page_dtype),
        "BLOCK_Q": rows // group, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "WINDOW": spec.window or 0,
        "SOFTCAP": spec.softcap or 0.0, "ALIBI": spec.alibi is not None, "SINKS": has_sinks, "TREE": has_trees,
        "QUANTISED": page_dtype in FORMATS, "IS_UNIFORM": is_invariant, "STAGES": tile.stages,
    }  # fmt: skip


def merge_constants(spec: AttentionSpec, *, has_sinks: bool) -> dict[str, Any]:
    """The constants of a launch of `merge`."""
    return {
        "GROUP": spec.n_heads // spec.n_kv_heads, "KV_HEADS": spec.n_kv_heads, "HEAD_DIM": spec.head_dim,
        "BLOCK_D": _block_d(spec.head_dim), "BLOCK_S": MERGE_LANES, "SINKS": has_sinks,
    }  # fmt: skip


class PagedAttention:
    """Attention of one step for all layers of a KV group: reference.paged_attention on a GPU.

    Either of one batch, or of one batch after another in tensors that stay where they are, so that a CUDA graph can be
    captured of a call (`for_bucket`). A call launches kernels and nothing else.
    """

    def __init__(
        self,
        batch: RaggedBatch,
        spec: AttentionSpec,
        device: torch.device,
        *,
        is_invariant: bool = False,
        split_keys: int | None = None,
        block_n: int | None = None,
    ) -> None:
        """is_invariant: a query's result is the same bits in any batch, however its row was cut into chunks.

        split_keys, block_n: keys of a range and of a tile, instead of those that suit. Raises ValueError for what the
        kernels do not compute.
        """
        check_trees(batch)
        self._configure(spec, device, batch.block_size, max(batch.query_lens), is_invariant, split_keys, block_n)
        self._has_trees = any(batch.trees)
        width = -(-max(batch.context_lens) // batch.block_size)
        self._tables = TableRows(len(batch.query_lens), width)
        self._work = self._policy(None, PARTIAL_BYTES // self._partial_bytes)
        plan = plan_work(batch, width, self._work)
        if plan is None:
            raise RuntimeError("a batch did not fit bounds that nobody set")
        table_size = len(batch.query_lens) * width
        self._allocate(len(plan.items), len(plan.merges), plan.n_partials, table_size, batch.n_tokens, n_buffers=1)
        self._launches = plan.launches
        self._fill(plan, batch)

    @classmethod
    def for_bucket(
        cls,
        n_rows: int,
        n_queries: int,
        table_width: int,
        block_size: int,
        spec: AttentionSpec,
        device: torch.device,
        *,
        is_invariant: bool = False,
        has_trees: bool = False,
        split_keys: int | None = None,
        block_n: int | None = None,
    ) -> "PagedAttention":
        """Attention of up to n_rows rows of n_queries queries each, which lie one after another at the beginning of the
        flat batch, with block tables of up to table_width pages. has_trees: whether rows may have draft trees.

        It launches as many programs whatever the batch; those without work end at once, and rows of the output that no
        batch row has are left as they are. Until the first `refill` there is no work at all.
        """
        self = cls.__new__(cls)
        self._configure(spec, device, block_size, n_queries, is_invariant, split_keys, block_n)
        self._has_trees = has_trees
        self._bounds = (n_rows, n_queries, table_width)
        self._tables = TableRows(n_rows, table_width)
        n_blocks = n_rows * -(-n_queries // self._block_q)
        if self._split_keys is None:
            most_items = n_blocks + -(-self._target // spec.n_kv_heads)
        else:
            # All of a long context takes more than a graph should launch in vain; such a batch does not fit.
            most_ranges = -(-table_width * block_size // self._split_keys)
            most_items = min(n_blocks * most_ranges, n_blocks + max(1024, 8 * n_blocks))
        most_partials = min(most_items, max(1, PARTIAL_BYTES // self._partial_bytes))
        self._work = self._policy(most_items, most_partials)
        self._allocate(most_items, n_blocks, most_partials, n_rows * table_width, n_rows * n_queries)
        self._launches = (Launch(slice(0, most_items), slice(0, n_blocks)),)
        return self

    def refill(self, batch: RaggedBatch) -> bool:
        """Take the next batch; work queued on the current stream afterwards sees it. False where the bucket has no room
        for the batch, and then nothing changes. Raises ValueError for one that no bucket has room for."""
        if self._bounds is None:
            raise ValueError("this is the attention of one batch: make one for_bucket to refill it")
        n_rows, n_queries, table_width = self._bounds
        check_trees(batch)
        if batch.block_size != self._block_size:
            raise ValueError(f"the batch has pages of {batch.block_size} tokens: the bucket's have {self._block_size}")
        if (
            not 0 < len(batch.query_lens) <= n_rows
            or any(n != n_queries for n in batch.query_lens)
            or max(batch.context_lens) > table_width * batch.block_size
            or (not self._has_trees and any(batch.trees))
        ):
            return False
        width = -(-max(batch.context_lens) // batch.block_size)
        plan = plan_work(batch, width, self._work)
        if plan is None:
            return False
        self._fill(plan, batch)
        return True

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """See reference.paged_attention. Raises ValueError for tensors that do not belong to the specification."""
        spec, tensors = self._spec, self._tensors
        self._check(q, pages, sinks)
        q = q.contiguous()
        out = torch.empty_like(q)
        tile = choose_tile(self._rows, spec.head_dim, q.dtype, pages.dtype, self._capability)
        if self._block_n is not None:
            tile = Tile(tile.block_m, self._block_n, tile.warps, tile.stages)
        is_quantized, has_sinks = pages.dtype in FORMATS, sinks is not None
        # Made anew by each call, so that layers, KV groups and graphs, which share a pool, all use the same memory.
        partial = torch.empty(*self._partial_shape, spec.head_dim, dtype=torch.float32, device=q.device)
        lse = torch.empty(self._partial_shape, dtype=torch.float32, device=q.device)
        unused = lse  # stands in for what a launch does not read
        constants = attend_constants(
            spec, self._rows, tile, pages.dtype, self._block_size,
            has_trees=self._has_trees, has_sinks=has_sinks, is_invariant=self._is_invariant,
        )  # fmt: skip
        for launch in self._launches:
            items, merges = tensors["items"][launch.items], tensors["merges"][launch.merges]
            attend[(len(items), spec.n_kv_heads, self._rows // tile.block_m)](
                q, pages, pages.view(torch.float32) if is_quantized else unused, sinks if has_sinks else unused,
                tensors.get("slopes", unused), out, partial, lse, items, tensors["tables"],
                tensors.get("positions", items), tensors.get("words", items),
                spec.scale * LOG2_E, pages.stride(0), self._partial_rows,
                **constants, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
            if len(merges):
                merge[(len(merges), self._partial_rows, spec.n_kv_heads)](
                    partial, lse, sinks if has_sinks else unused, out, merges, self._partial_rows,
                    **merge_constants(spec, has_sinks=has_sinks),
                )  # fmt: skip
        return out

    def _configure(
        self,
        spec: AttentionSpec,
        device: torch.device,
        block_size: int,
        most_queries: int,
        is_invariant: bool,
        split_keys: int | None,
        block_n: int | None,
    ) -> None:
        """What does not depend on the batch. Raises ValueError."""
        _check_spec(spec)
        if split_keys is not None and split_keys % (block_n or SPLIT_UNIT):
            raise ValueError(f"split_keys is {split_keys}: a multiple of {block_n or SPLIT_UNIT}, the tile, is needed")
        self._spec, self._device, self._block_size, self._is_invariant = spec, device, block_size, is_invariant
        self._block_n, self._split_keys = block_n, split_keys or (INVARIANT_SPLIT if is_invariant else None)
        group = spec.n_heads // spec.n_kv_heads
        self._bounds: tuple[int, int, int] | None = None
        self._rows = rows_of_item(group, most_queries, is_invariant)
        self._block_q = self._rows // group
        self._partial_rows = min(self._block_q, most_queries) * group
        self._partial_bytes = spec.n_kv_heads * self._partial_rows * (spec.head_dim + 1) * 4
        # Programs that fill the device a few times over, so that it does not matter much when each of them ends.
        self._target, self._capability = CPU_PROGRAMS, HOPPER
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            self._target = properties.multi_processor_count * (8 if self._rows < 64 else 4 if self._rows == 64 else 2)
            self._capability = 10 * properties.major + properties.minor

    def _policy(self, most_items: int | None, most_partials: int) -> Policy:
        return Policy(
            block_q=self._block_q,
            n_kv_heads=self._spec.n_kv_heads,
            window=self._spec.window,
            target=self._target,
            shortest=256 if self._rows < MOST_ROWS else 512,  # else a program's beginning and end are most of it
            split_keys=self._split_keys,
            most_items=most_items,
            most_partials=most_partials,
            may_relaunch=most_items is None,
        )

    def _allocate(
        self, n_items: int, n_merges: int, n_partials: int, table_size: int, n_tokens: int, n_buffers: int = 3
    ) -> None:
        """The tensors on the device. n_buffers: see Staging."""
        fields: dict[str, Field] = {
            "items": ((n_items, ITEM_FIELDS), torch.int32),
            "merges": ((n_merges, MERGE_FIELDS), torch.int32),
        }
        if self._spec.alibi is not None:
            fields["slopes"] = ((self._spec.n_heads,), torch.float32)
        if self._has_trees:
            fields |= {"words": ((n_tokens,), torch.int64), "positions": ((n_tokens,), torch.int32)}
        fields["tables"] = ((table_size,), torch.int32)  # the last, since a batch often fills but its beginning
        self._n_tokens = n_tokens
        self._staging = Staging(fields, self._device, n_buffers)
        self._tensors: Mapping[str, torch.Tensor] = self._staging.tensors
        self._partial_shape = (max(n_partials, 1), self._spec.n_kv_heads, self._partial_rows)

    def _fill(self, plan: Plan, batch: RaggedBatch) -> None:
        """Send the work of a batch to the device."""
        tables = self._tables.update(batch)
        arrays = self._staging.arrays()
        for name, values in (("items", plan.items), ("merges", plan.merges)):
            arrays[name][: len(values)] = values
            arrays[name][len(values) :] = 0
        # A page that is gone lies behind every query's window. Kernels may load any other in its place, and hide it.
        np.maximum(tables, 0, out=arrays["tables"][: tables.size].reshape(tables.shape))
        if "slopes" in arrays:
            arrays["slopes"][:] = self._spec.alibi
        if self._has_trees:
            positions, words = tree_fields(batch)
            arrays["positions"][: len(positions)], arrays["words"][: len(words)] = positions, words
        self._staging.send(tables.size)

    def _check(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None) -> None:
        spec = self._spec
        if q.shape[1:] != (spec.n_heads, spec.head_dim) or q.shape[0] < self._n_tokens:
            raise ValueError(
                f"q is {list(q.shape)}: [{self._n_tokens}, {spec.n_heads}, {spec.head_dim}] is what the batch has"
            )
        if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise ValueError(f"q is {q.dtype}: float16, bfloat16 and float32 are computed")
        if pages.dtype not in FORMATS and pages.dtype != q.dtype:
            raise ValueError(f"pages are {pages.dtype}: they are {q.dtype}, as q is, or one of {FORMATS}")
        if pages.dtype == torch.float8_e4m3fn and self._capability < FP8_CAPABILITY:
            raise ValueError(f"pages are {pages.dtype}: the device (sm_{self._capability}) lacks them, use int8")
        if pages.dtype in FORMATS and spec.head_dim % SCALE_BYTES:
            raise ValueError(f"heads have {spec.head_dim} dimensions: quantised pages need a multiple of {SCALE_BYTES}")
        expected = (2, spec.n_kv_heads, page_rows(self._block_size, spec.head_dim, pages.dtype), spec.head_dim)
        if pages.shape[1:] != expected:
            raise ValueError(f"pages are {list(pages.shape)}: [pages, {', '.join(map(str, expected))}] is expected")
        if sinks is not None and (sinks.dtype != torch.float32 or sinks.shape != (spec.n_heads,)):
            raise ValueError(f"sinks are {sinks.dtype} {list(sinks.shape)}: float32 [{spec.n_heads}] is expected")


def _check_spec(spec: AttentionSpec) -> None:
    if spec.n_heads % spec.n_kv_heads:
        raise ValueError(
            f"{spec.n_heads} query heads do not divide among {spec.n_kv_heads} KV heads: the latter must be a divisor"
        )
    if spec.head_dim > LARGEST_HEAD:
        raise ValueError(f"heads have {spec.head_dim} dimensions: at most {LARGEST_HEAD} fit a program")
    if spec.scale <= 0:
        raise ValueError(f"scale is {spec.scale}: scores are compared before they are scaled, so it must be positive")
    if spec.alibi is not None and len(spec.alibi) != spec.n_heads:
        raise ValueError(f"{len(spec.alibi)} ALiBi slopes are given: one for each of {spec.n_heads} heads is needed")


def _block_d(head_dim: int) -> int:
    """head_dim as a tensor core takes it."""
    return max(16, 1 << (head_dim - 1).bit_length())
