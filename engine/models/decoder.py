"""One decoder for all families of `family.FAMILIES`: what differs between them is data in ModelConfig.

tokens -> embedding -> [norm -> qkv -> attention -> output -> + -> norm -> MLP -> +] x layers -> norm -> head
"""

from collections.abc import Iterator
from typing import Protocol

import torch

from engine.models.config import ModelConfig
from engine.models.experts import Experts
from engine.models.layers import DecoderLayer, GatedMlp, Linear, Mlp, Projection
from engine.models.rope import rope_frequencies
from kernels import Kernels


class Attend(Protocol):
    """Norm and rotate q and k, cache K and V of a layer, attend: whatever owns the pages implements it."""

    def __call__(
        self, layer_index: int, layer: DecoderLayer, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        """qkv [n, heads + 2 kv_heads, head_dim] to [n, heads, head_dim]."""
        ...


class RunLayers(Protocol):
    """Every layer of a decoder at once."""

    def __call__(
        self,
        residual: torch.Tensor,
        rotations: list[tuple[torch.Tensor, torch.Tensor]],
        attend: Attend,
        state_layers: tuple[int, ...],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embeddings [n, hidden], which may be overwritten; what it returns is what Decoder.forward does."""
        ...


class Decoder:
    """The weights of a model and its arithmetic over a flat batch of tokens; it keeps no state between calls."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, max_model_len: int) -> None:
        """Build every weight on the meta device: shapes without memory, for `loading` to fill.

        max_model_len: positions that will be served; some rotations depend on it (see rope.rope_frequencies).
        """
        self.config, self.dtype = config, dtype
        self.n_parameters = 0
        """Weights, counting a tied embedding once; filled by loading."""
        self.embedding = torch.empty(config.vocab_size, config.hidden_size, device="meta", dtype=dtype)
        self.layers = [self._layer(index) for index in range(config.n_layers)]
        self.final_norm = torch.empty(config.hidden_size, device="meta", dtype=dtype)
        self.head: Projection = Linear.on_meta(config.hidden_size, config.vocab_size, dtype=dtype)
        kinds = [config.rope] if config.local_rope is None else [config.rope, config.local_rope]
        self.ropes = [rope_frequencies(rope, config.head_dim, max_model_len) for rope in kinds]
        """Inverse frequencies float32 [head_dim / 2], and the factor of cos and sin, of every rotation."""

    def _layer(self, index: int) -> DecoderLayer:
        config, dtype, window = self.config, self.dtype, self.config.windows[index]
        hidden = config.hidden_size

        def vector(size: int) -> torch.Tensor:
            return torch.empty(size, device="meta", dtype=dtype)

        mlp: Mlp
        if config.experts is not None and index in config.experts.layers:
            mlp = Experts.on_meta(config.experts, hidden, config.activation, dtype)
        else:
            size, has_bias = config.intermediate_size, config.has_mlp_bias
            mlp = GatedMlp.on_meta(hidden, size, config.activation, has_bias=has_bias, dtype=dtype)
        attended = config.n_heads * config.head_dim
        return DecoderLayer(
            input_norm=vector(hidden),
            qkv=Linear.on_meta(hidden, config.qkv_size, has_bias=config.has_qkv_bias, dtype=dtype),
            q_norm=vector(config.head_dim) if config.has_qk_norm else None,
            k_norm=vector(config.head_dim) if config.has_qk_norm else None,
            output=Linear.on_meta(attended, hidden, has_bias=config.has_output_bias, dtype=dtype),
            attention_post_norm=vector(hidden) if config.has_post_norms else None,
            mlp_norm=vector(hidden),
            mlp=mlp,
            mlp_post_norm=vector(hidden) if config.has_post_norms else None,
            window=window,
            rope=0 if window is None or config.local_rope is None else 1,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embedding.device

    @property
    def projections(self) -> Iterator[Projection]:
        """Every weight matrix, in the order of the forward pass; in a sparse layer a token meets a few experts only."""
        for layer in self.layers:
            yield from (layer.qkv, layer.output, *layer.mlp.projections)
        yield self.head

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        kernels: Kernels,
        state_layers: tuple[int, ...] = (),
        run_layers: RunLayers | None = None,
        drawn: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Hidden states of a flat batch, before the final norm, and those after each of `state_layers` (ascending).

        tokens, positions: int64 [n]; returns [n, hidden] and as many [n, hidden] as state_layers. run_layers: computes
        all layers instead of the loop here, to the same bits. drawn: int64 [m], what tokens below 0 refer to (see
        reference.embed).
        """
        config, states = self.config, list[torch.Tensor]()
        tables = [kernels.rotary_tables(positions, inv_freq, factor) for inv_freq, factor in self.ropes]
        eps = config.norm_eps
        residual = kernels.embed(tokens, drawn, self.embedding, config.embedding_scale)
        if run_layers is not None:
            return run_layers(residual, tables, attend, state_layers)
        normed = kernels.rms_norm(residual, self.layers[0].input_norm, eps)
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(normed).view(tokens.shape[0], -1, config.head_dim)
            output = layer.output(attend(index, layer, qkv, *tables[layer.rope]).flatten(1))
            if layer.attention_post_norm is not None:
                output = kernels.rms_norm(output, layer.attention_post_norm, eps)
            normed, residual = kernels.add_rms_norm(output, residual, layer.mlp_norm, eps)
            output = layer.mlp(normed, kernels)
            if layer.mlp_post_norm is not None:
                output = kernels.rms_norm(output, layer.mlp_post_norm, eps)
            if index + 1 < len(self.layers):
                normed, residual = kernels.add_rms_norm(output, residual, self.layers[index + 1].input_norm, eps)
            else:
                residual = residual + output
            if index in state_layers:
                states.append(residual)
        return residual, states

    def logits(self, hidden: torch.Tensor, kernels: Kernels, out: torch.Tensor | None = None) -> torch.Tensor:
        """Final norm and head: [n, hidden] to float32 [n, vocab]. out: where to put them (None: somewhere new)."""
        product = self.head(kernels.rms_norm(hidden, self.final_norm, self.config.norm_eps))
        logits = product.float() if out is None else out.copy_(product)
        cap = self.config.logits_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)
