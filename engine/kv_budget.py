"""How many bytes of a GPU the pages may take: what is left beside weights, steps and graphs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from engine.config import CacheConfig, SchedulerConfig
from engine.graphs import Bucket
from engine.models.decoder import Decoder
from engine.plan import Row, StepPlan
from engine.platform import DeviceMemory, Platform
from engine.runner import ModelRunner

__all__ = ["StepNeeds", "measure_step", "shared_caches", "split_bytes"]

GRAPH_BYTES = 512 * 2**20
"""For what a model's graphs hold beside their logits: activations of the largest one, partial sums of attention."""


@dataclass(frozen=True, slots=True)
class StepNeeds:
    """What a model takes beside weights and pages: a step's peak, which models take one after the other, and what its
    graphs hold for good."""

    peak_bytes: int
    graph_bytes: int

    @classmethod
    def of(cls, peak_bytes: int, buckets: Sequence[Bucket], vocab_size: int) -> "StepNeeds":
        """buckets: of its graphs, none without any."""
        most = max((bucket.n_tokens for bucket in buckets), default=0)
        return cls(peak_bytes, GRAPH_BYTES + 4 * most * vocab_size if buckets else 0)


def measure_step(
    model: Decoder,
    block_size: int,
    limits: SchedulerConfig,
    max_model_len: int,
    state_layers: tuple[int, ...],
    platform: Platform,
) -> int:
    """Bytes that the largest steps hold while they are computed: they are run once, over pages that are given back."""
    if platform.memory is None:
        raise ValueError(f"the memory of {platform.device} is not limited, so there is nothing to measure")
    plans = list(_largest_steps(block_size, limits, max_model_len))
    n_blocks = max(sum(len(row.block_table) for row in plan.rows) for plan in plans)
    cache = CacheConfig(block_size=block_size, n_blocks=n_blocks)
    runner = ModelRunner(model.config, model, cache, state_layers, platform=platform)

    def work() -> None:
        for plan in plans:
            _draw_all(runner.run(_with_tables(plan, len(runner.groups))).logits)

    work()  # kernels are compiled and products chosen before it counts
    return platform.memory.peak_bytes(work)


def shared_caches(
    caches: Mapping[str, CacheConfig],
    per_token: Mapping[str, int],
    needs: Mapping[str, StepNeeds],
    memory: DeviceMemory,
    share: float,
) -> Mapping[str, CacheConfig]:
    """Every cache with its size, when all weights are in memory.

    caches: by model; those that say their size keep it. per_token: bytes of a token's keys and values. share: of all
    memory that the process may take. Raises ValueError where nothing is left.
    """
    usable = memory.free_bytes() - int((1.0 - share) * memory.total_bytes())
    usable -= max(need.peak_bytes for need in needs.values()) + sum(need.graph_bytes for need in needs.values())
    usable -= sum(cache.kv_bytes or 0 for cache in caches.values())
    open_names = [name for name, cache in caches.items() if cache.kv_bytes is None and cache.n_blocks is None]
    if open_names and usable <= 0:
        raise ValueError(
            f"beside the weights {-usable / 2**20:.0f} MiB are missing before the first KV page: "
            "raise memory_share, lower token_budget or max_rows, or quantise the weights"
        )
    return {**caches, **split_bytes({name: caches[name] for name in open_names}, per_token, usable)}


def split_bytes(
    caches: Mapping[str, CacheConfig], per_token: Mapping[str, int], kv_bytes: int
) -> Mapping[str, CacheConfig]:
    """Each model's share of the budget is that of its bytes per token, so that all hold equally many tokens."""
    total = sum(per_token[name] for name in caches)
    return {
        name: replace(cache, n_blocks=None, kv_bytes=kv_bytes * per_token[name] // total)
        for name, cache in caches.items()
    }


def _largest_steps(block_size: int, limits: SchedulerConfig, max_model_len: int) -> Iterator[StepPlan]:
    """A step of prompts as long as the budget allows, and one of as many rows as may run, each with logits."""
    chunks, left = list[int](), limits.budget
    while left:
        chunks.append(min(left, max_model_len))
        left -= chunks[-1]
    for lengths in (chunks[: limits.rows], [1] * min(limits.rows, limits.budget)):
        rows, first = [], 0
        for index, n in enumerate(lengths):
            table = tuple(range(first, first + -(-n // block_size)))
            rows.append(Row(f"measured {index}", 0, (0,) * n, table, n_logits=1))
            first += len(table)
        yield StepPlan(0, tuple(rows))


def _with_tables(plan: StepPlan, n_groups: int) -> StepPlan:
    """The same for a model of several KV groups, which may share pages here: what is read does not matter."""
    return replace(
        plan, rows=tuple(replace(row, other_tables=(row.block_table,) * (n_groups - 1)) for row in plan.rows)
    )


def _draw_all(logits: torch.Tensor) -> None:
    """What sampling holds at its worst: another copy of the logits."""
    logits.softmax(-1)
