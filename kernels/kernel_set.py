"""The kernels of one device as plain data, so that their callers need not know which device it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from kernels.batch import RaggedBatch
from kernels.sampling_batch import Sampled, SamplingBatch

__all__ = [
    "AttentionSpec",
    "AttentionStep",
    "BucketAttention",
    "Kernels",
    "PrepareAttention",
    "PrepareBucket",
    "keep_slots",
]


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """What attention is for all layers of a KV group.

    Query head h reads KV head h // (n_heads / n_kv_heads). scale: what scores are multiplied by. softcap c: a score s
    becomes c tanh(s / c) (Gemma 2). window: a query at position i sees keys i - window + 1 … i (None: all up to i).
    alibi: by head, what a score loses for each position that its key lies back (ALiBi; Press et al., 2021), or None.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    scale: float
    softcap: float | None = None
    window: int | None = None
    alibi: tuple[float, ...] | None = None


class AttentionStep(Protocol):
    """Attention of one step, prepared from its batch; called once per layer. See reference.paged_attention."""

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """q [n, heads, d], pages of one layer, sinks float32 [heads] or None, to [n, heads, d]."""
        ...


class PrepareAttention(Protocol):
    """From the batch of a step to its attention."""

    def __call__(self, batch: RaggedBatch, spec: AttentionSpec, device: torch.device) -> AttentionStep:
        """Raises ValueError for what the device's kernels do not compute."""
        ...


class BucketAttention(AttentionStep, Protocol):
    """Attention over tensors that stay where they are, so that a CUDA graph may read them."""

    def refill(self, batch: RaggedBatch) -> bool:
        """Attend to this batch from now on; False, and no change, where it does not fit."""
        ...


class PrepareBucket(Protocol):
    """Attention of steps of at most n_rows rows of n_queries queries each, with tables of at most table_width pages.
    has_trees: whether rows may have draft trees."""

    def __call__(
        self,
        n_rows: int,
        n_queries: int,
        table_width: int,
        block_size: int,
        spec: AttentionSpec,
        device: torch.device,
        *,
        has_trees: bool = False,
    ) -> BucketAttention:
        """Empty at first; raises ValueError for what the device's kernels do not compute."""
        ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one device; those up to move_kv have the signature of their namesakes in `reference` and
    `reference_verify`.

    prepare_slots: slots int64 [n] (page * block_size + offset), kv_heads, block_size, to what rope_and_cache takes as
    slots. prepare_bucket: None where steps are not recorded. is_native: whether these are the C kernels, which
    can also compute all layers in one call. reads_quantized: whether pages may hold 8-bit numbers.
    """

    embed: Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, float | None], torch.Tensor]
    rotary_tables: Callable[[torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
    rms_norm: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    add_rms_norm: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
    silu_and_mul: Callable[[torch.Tensor], torch.Tensor]
    gelu_tanh_and_mul: Callable[[torch.Tensor], torch.Tensor]
    rope_and_cache: Callable[
        [
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor | None,
            torch.Tensor | None,
            float,
        ],
        torch.Tensor,
    ]
    add_page_sums: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    carry_page_sums: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    sample: Callable[[torch.Tensor, SamplingBatch], Sampled]
    distribution: Callable[[torch.Tensor, SamplingBatch], torch.Tensor]
    accept_coupled: Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]
    ]
    accept_ratio: Callable[
        [
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
            int,
        ],
        tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ]
    move_kv: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
    prepare_slots: Callable[[torch.Tensor, int, int], torch.Tensor]
    prepare_attention: PrepareAttention
    prepare_bucket: PrepareBucket | None = None
    is_native: bool = False
    reads_quantized: bool = False


def keep_slots(slots: torch.Tensor, n_kv_heads: int, block_size: int) -> torch.Tensor:  # noqa: ARG001
    """What prepares slots for a kernel that finds the vectors of a slot by itself."""
    return slots
