"""The paged KV cache of one model, and attention over it for one step.

Pages of a layer are one tensor [page, 2, kv_head, token, head_dim]; index 0 of the second axis is K, 1 is V:

    page 7 of layer 0   K  head 0  | t0 | t1 | … | t31 |      each cell is head_dim numbers
                           head 1  | t0 | t1 | … | t31 |
                        V  head 0  | …
"""

from collections.abc import Sequence

import torch

from engine.config import ModelConfig
from engine.models.layers import DecoderLayer
from kernels import Kernels, RaggedBatch


class KVCache:
    """Pages for n_blocks blocks of block_size tokens, in every layer. The block pool decides what lies in them."""

    def __init__(
        self, config: ModelConfig, n_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Zeroed: masked keys are multiplied by zero, which must not meet a NaN left in the memory."""
        shape = (n_blocks, 2, config.n_kv_heads, block_size, config.head_dim)
        self.block_size, self.n_blocks = block_size, n_blocks
        self.n_kv_heads = config.n_kv_heads
        self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]

    @property
    def n_bytes(self) -> int:
        """Bytes over all layers."""
        return sum(layer.nbytes for layer in self.layers)

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, in every layer: targets[i] becomes sources[i]."""
        for layer in self.layers:
            layer[list(targets)] = layer[list(sources)]


class StepAttention:
    """What the decoder calls in every layer of one step: cache K and V of the step's tokens, attend to all before
    them."""

    def __init__(self, cache: KVCache, batch: RaggedBatch, slots: torch.Tensor, config: ModelConfig, kernels: Kernels):
        """slots: int64 [n], page * block_size + offset of every token of the batch."""
        self._cache, self._kernels, self._eps = cache, kernels, config.norm_eps
        self._slots = kernels.prepare_slots(slots, cache.n_kv_heads, cache.block_size)
        self._attention = kernels.prepare_attention(
            batch, cache.n_kv_heads, config.attention_scale, slots.device, config.attention_softcap
        )

    def __call__(
        self, layer_index: int, layer: DecoderLayer, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        """qkv [n, heads + 2 kv_heads, head_dim] to [n, heads, head_dim]."""
        pages = self._cache.layers[layer_index]
        q = self._kernels.rope_and_cache(qkv, cos, sin, pages, self._slots, layer.q_norm, layer.k_norm, self._eps)
        return self._attention(q, pages, layer.window)
