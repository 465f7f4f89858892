"""The paged KV cache of one model, and attention over it for one step.

Pages are one tensor [page, 2, kv_head, token, head_dim] per layer of a KV group; index 0 of the second axis is K, 1 is
V:

    page 7 of layer 0   K  head 0  | t0 | t1 | … | t31 |      each cell is head_dim numbers
                           head 1  | t0 | t1 | … | t31 |
                        V  head 0  | …
"""

from collections.abc import Sequence

import numpy as np
import torch

from engine.config import KVDtype, ModelConfig
from engine.kv_groups import KVGroup, kv_groups, layers_per_page
from engine.models.layers import DecoderLayer
from engine.step_batch import StepBatch, StepTensors
from kernels import AttentionSpec, Kernels
from kernels.kernel_set import AttentionStep
from kernels.quantized_pages import FORMATS, SCALE_BYTES, page_rows
from kernels.staging import to_device


def page_dtype(kv_dtype: KVDtype, dtype: torch.dtype) -> torch.dtype:
    """What the pages of a model of `dtype` hold."""
    return {"auto": dtype, "int8": torch.int8, "fp8": torch.float8_e4m3fn}[kv_dtype]


def token_kv_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of a token's keys and values in the pages of one layer, with their scales."""
    return 2 * config.n_kv_heads * (config.head_dim * dtype.itemsize + (SCALE_BYTES if dtype in FORMATS else 0))


class KVCache:
    """Pages for n_blocks blocks of block_size tokens. The block pool decides what lies in them.

    pages: the tensors; the i-th layer of every KV group has its keys and values in the i-th, in pages of its own.
    group_of, layers: by layer of the model its group, and the tensor that its pages are in. dtype: of the numbers in
    the pages; those of 8 bits have their scales behind them (kernels.quantized_pages).
    """

    def __init__(
        self, config: ModelConfig, n_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Zeroed: masked keys are multiplied by zero, which must not meet a NaN left in the memory."""
        rows = page_rows(block_size, config.head_dim, dtype)
        shape = (n_blocks, 2, config.n_kv_heads, rows, config.head_dim)
        self.block_size, self.n_blocks = block_size, n_blocks
        self.n_kv_heads = config.n_kv_heads
        self.groups = kv_groups(config.windows)
        self.pages = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers_per_page(self.groups))]
        of_layer = {
            layer: (g, pages)
            for g, group in enumerate(self.groups)
            for layer, pages in zip(group.layers, self.pages, strict=False)
        }
        self.group_of = tuple(of_layer[layer][0] for layer in range(config.n_layers))
        self.layers = tuple(of_layer[layer][1] for layer in range(config.n_layers))

    @staticmethod
    def bytes_per_block(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
        """Bytes of one page: K and V of as many layers as the largest group has."""
        rows = page_rows(block_size, config.head_dim, dtype)
        vectors = 2 * config.n_kv_heads * rows * layers_per_page(kv_groups(config.windows))
        return vectors * config.head_dim * dtype.itemsize

    @property
    def n_bytes(self) -> int:
        """Bytes over all pages."""
        return sum(pages.nbytes for pages in self.pages)

    def copy_pages(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, in every layer: targets[i] becomes sources[i]."""
        device = self.pages[0].device
        read, written = (to_device(np.array(pages, dtype=np.int64), device) for pages in (sources, targets))
        for pages in self.pages:
            plain = pages.view(torch.uint8)  # torch cannot index all dtypes
            plain[written] = plain[read]


def attention_spec(config: ModelConfig, group: KVGroup) -> AttentionSpec:
    """Attention in the layers of a KV group."""
    return AttentionSpec(
        config.n_heads,
        config.n_kv_heads,
        config.head_dim,
        config.attention_scale,
        config.attention_softcap,
        group.window,
    )


class StepAttention:
    """What the decoder calls in every layer of one step: cache K and V of the step's tokens, attend to all before
    them. slots, attention: by KV group, where the tokens go and the attention of the step."""

    def __init__(
        self,
        cache: KVCache,
        config: ModelConfig,
        kernels: Kernels,
        slots: Sequence[torch.Tensor],
        attention: Sequence[AttentionStep],
    ) -> None:
        self._cache, self._kernels, self._eps = cache, kernels, config.norm_eps
        self.slots, self.attention = slots, attention

    @classmethod
    def of(
        cls, cache: KVCache, config: ModelConfig, kernels: Kernels, batch: StepBatch, tensors: StepTensors
    ) -> "StepAttention":
        """Attention of a batch whose arrays are on the device."""
        device = tensors.tokens.device
        return cls(
            cache,
            config,
            kernels,
            [kernels.prepare_slots(slots, cache.n_kv_heads, cache.block_size) for slots in tensors.slots],
            [
                kernels.prepare_attention(ragged, attention_spec(config, group), device)
                for ragged, group in zip(batch.ragged, cache.groups, strict=True)
            ],
        )

    def __call__(
        self, layer_index: int, layer: DecoderLayer, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        """qkv [n, heads + 2 kv_heads, head_dim] to [n, heads, head_dim]."""
        group, pages = self._cache.group_of[layer_index], self._cache.layers[layer_index]
        slots = self.slots[group]
        q = self._kernels.rope_and_cache(qkv, cos, sin, pages, slots, layer.q_norm, layer.k_norm, self._eps)
        return self.attention[group](q, pages)
