"""How many bytes of a GPU the pages may take: what is left beside weights, steps and graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.config import CacheConfig, SchedulerConfig
from engine.graphs import Bucket
from engine.loaded_model import LoadedModel
from engine.plan import Row, StepPlan
from engine.platform import DeviceMemory, Platform
from engine.request import SamplingParams
from engine.runner import ModelRunner
from engine.sampler import Sampler
from engine.sampling_row import SamplingRow

__all__ = ["StepNeeds", "measure_step", "shared_caches", "split_bytes"]

GRAPH_BYTES = 512 * 2**20
"""For what a model's graphs hold beside their logits. An 8 B model of 128 k positions and 256 rows: 100 MB of
activations and up to 40 of attention's partial results, which all graphs share, 30 of block tables for each KV group,
32 for cuBLAS, and a few for each graph."""


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


def measure_step(model: LoadedModel, platform: Platform, max_draft: int = 0) -> int:
    """Bytes that the largest step holds while it is computed and drawn from: it is run once, over pages that are given
    back. max_draft: tokens of a draft that is verified, 0 where there are none."""
    if platform.memory is None:
        raise ValueError(f"the memory of {platform.device} is not limited, so there is nothing to measure")
    config, decoder = model.config, model.decoder
    plan = _largest_step(config.cache.block_size, model.limits, model.max_len, max_draft)
    cache = replace(config.cache, kv_bytes=None, n_blocks=sum(len(row.block_table) for row in plan.rows))
    runner = ModelRunner(
        decoder.config, decoder, cache, model.state_layers, is_invariant=config.invariant, platform=platform
    )
    plan = _with_tables(plan, len(runner.groups))
    sampler = Sampler(runner.kernels, decoder.config.vocab_size, runner.device, model.limits.rows)

    def work() -> None:
        logits = runner.run(plan).logits
        sampler.prepare([_dearest_draw(sampler.vocab_size)] * len(logits)).draw(logits).read()

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
    usable -= sum(
        (cache.kv_bytes or 0) + (cache.n_blocks or 0) * cache.block_size * per_token[name]
        for name, cache in caches.items()
    )
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


def _largest_step(block_size: int, limits: SchedulerConfig, max_model_len: int, max_draft: int) -> StepPlan:
    """A step of as many tokens, and as many rows of logits, as there may be in one."""
    n_rows = min(limits.rows, limits.budget)
    n_logits = min(1 + max_draft, limits.budget // n_rows, max_model_len)
    rows, n_pages, spare = list[Row](), 0, limits.budget - n_rows * n_logits
    for index in range(n_rows):
        more = min(spare, max_model_len - n_logits)
        n, spare = n_logits + more, spare - more
        table = tuple(range(n_pages, n_pages + -(-n // block_size)))
        rows.append(Row(f"measured {index}", 0, (0,) * n, table, n_logits))
        n_pages += len(table)
    return StepPlan(0, tuple(rows))


def _with_tables(plan: StepPlan, n_groups: int) -> StepPlan:
    """The same for a model of several KV groups, which may share pages here: what is read does not matter."""
    return replace(
        plan, rows=tuple(replace(row, other_tables=(row.block_table,) * (n_groups - 1)) for row in plan.rows)
    )


def _dearest_draw(vocab_size: int) -> SamplingRow:
    """One with a mask, of which log-probabilities are wanted, too: several copies of its logits."""
    mask = np.full(-(-vocab_size // 32), -1, dtype=np.int32)
    return SamplingRow(SamplingParams(top_p=0.5, logprobs=1), seed=0, position=0, n_output=0, mask=mask)
