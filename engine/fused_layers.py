"""All layers of a decoder in one call of the C kernels, for the few rows of a decode step."""

import ctypes

import torch

from engine.attention import KVCache, StepAttention
from engine.config import ModelConfig
from engine.models.decoder import Attend, Decoder
from engine.models.layers import DecoderLayer, GatedMlp, Projection
from engine.quantization import Int4Linear, NativeLinear, W8A8Linear
from kernels.native.kernels import NativeAttention, library_for
from kernels.native.library import MAX_HEAD_DIM, NativeLibrary
from kernels.native.structures import AttentionShape, DecoderLayerWeights, ProjectionWeights, StepGroup

__all__ = ["FUSED_TOKENS", "FusedLayers"]

FUSED_TOKENS = 64
"""Beyond this some products are faster in torch, and the time between kernels does not count."""


class FusedLayers:
    """The same kernels as Decoder.forward calls one by one, and therefore the same bits.

    Keeps addresses of the decoder's weights and of the cache's pages, which never move.
    """

    def __init__(self, decoder: Decoder, cache: KVCache, library: NativeLibrary, weights: list[DecoderLayerWeights]):
        """Use `build`."""
        self._decoder, self._cache, self._library = decoder, cache, library  # kept alive with their addresses
        self._layers = (DecoderLayerWeights * len(weights))(*weights)

    @classmethod
    def build(cls, decoder: Decoder, cache: KVCache) -> "FusedLayers | None":
        """None for a decoder with parts that the C kernels lack: experts, post-norms, another gate, a GPU's weights."""
        library = library_for(decoder.dtype) if decoder.device.type == "cpu" else None
        if library is None:
            return None
        weights = [_describe(decoder.config, layer, index, cache) for index, layer in enumerate(decoder.layers)]
        complete = [layer for layer in weights if layer is not None]
        return cls(decoder, cache, library, complete) if len(complete) == len(weights) else None

    def __call__(
        self,
        residual: torch.Tensor,
        rotations: list[tuple[torch.Tensor, torch.Tensor]],
        attend: Attend,
        state_layers: tuple[int, ...],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embeddings [n, hidden], which are overwritten, to hidden states and those after each of `state_layers`."""
        if not isinstance(attend, StepAttention):
            raise TypeError(f"attend is {type(attend).__name__}: the C kernels read a StepAttention")
        groups = [
            StepGroup(ctypes.addressof(attention.rows), slots.data_ptr(), len(attention.rows))
            for slots, attention in zip(attend.slots, attend.attention, strict=True)
            if isinstance(attention, NativeAttention)
        ]
        states = {layer: torch.empty_like(residual) for layer in state_layers}
        step = (StepGroup * len(groups))(*groups)
        self._library.decoder_layers(residual, self._layers, step, rotations, states, self._decoder.config.norm_eps)
        return residual, list(states.values())


def _describe(config: ModelConfig, layer: DecoderLayer, index: int, cache: KVCache) -> DecoderLayerWeights | None:
    has_post_norms = layer.attention_post_norm is not None or layer.mlp_post_norm is not None
    if config.head_dim > MAX_HEAD_DIM:
        return None
    if not isinstance(layer.mlp, GatedMlp) or layer.mlp.activation != "silu" or has_post_norms:
        return None
    projections = [
        _projection(projection) for projection in (layer.qkv, layer.output, layer.mlp.gate_up, layer.mlp.down)
    ]
    if not all(projections):
        return None
    shape = AttentionShape(
        config.n_heads,
        config.n_kv_heads,
        config.head_dim,
        cache.block_size,
        layer.window or 0,
        config.attention_scale,
        config.attention_softcap or 0.0,
    )
    return DecoderLayerWeights(
        layer.input_norm.data_ptr(),
        0 if layer.q_norm is None else layer.q_norm.data_ptr(),
        0 if layer.k_norm is None else layer.k_norm.data_ptr(),
        layer.mlp_norm.data_ptr(),
        *projections,
        cache.layers[index].data_ptr(),
        shape,
        cache.group_of[index],
        layer.rope,
    )


def _projection(projection: Projection) -> ProjectionWeights | None:
    return projection.describe() if isinstance(projection, NativeLinear | W8A8Linear | Int4Linear) else None
