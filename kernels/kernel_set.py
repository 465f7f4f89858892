"""The kernels of one device as plain data, so that their callers need not know which device it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from kernels.batch import RaggedBatch


class AttentionStep(Protocol):
    """Attention of one step, prepared from its batch; called once per layer. See reference.paged_attention."""

    def __call__(self, q: torch.Tensor, pages: torch.Tensor, window: int | None) -> torch.Tensor:
        """q [n, heads, d], pages of one layer, to [n, heads, d]."""
        ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels of one device; every field but the last two has the signature of its namesake in `reference`.

    prepare_slots: slots int64 [n] (page * block_size + offset), kv_heads, block_size, to what rope_and_cache takes as
    slots. prepare_attention: batch, kv_heads, scale, device, soft cap of the scores or None, to the attention of that
    step.
    """

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
    sample: Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    accept_chain: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    prepare_slots: Callable[[torch.Tensor, int, int], torch.Tensor]
    prepare_attention: Callable[[RaggedBatch, int, float, torch.device, float | None], AttentionStep]
