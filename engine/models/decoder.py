"""One decoder for the Llama, Mistral, Qwen2 and Qwen3 families: what differs between them is data in ModelConfig.

tokens -> embedding -> [norm -> qkv -> attention -> output -> + -> norm -> gate_up -> silu * -> down -> +] x layers ->
norm -> head
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from engine.models.config import ModelConfig
from engine.models.layers import DecoderLayer, Linear, Projection
from engine.models.rope import rope_frequencies
from kernels import Kernels, kernels_for
from kernels.reference import rotary_tables


class Attend(Protocol):
    """Norm and rotate q and k, cache K and V of a layer, attend: whatever owns the pages implements it."""

    def __call__(
        self, layer_index: int, layer: DecoderLayer, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> torch.Tensor:
        """qkv [n, heads + 2 kv_heads, head_dim] to [n, heads, head_dim]."""
        ...


class Decoder:
    """The weights of a model and its arithmetic over a flat batch of tokens; it keeps no state between calls."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        """Build every weight on the meta device: shapes without memory, for `loading` to fill."""
        self.config, self.dtype = config, dtype
        hidden, middle = config.hidden_size, config.intermediate_size

        def vector(size: int) -> torch.Tensor:
            return torch.empty(size, device="meta", dtype=dtype)

        def linear(n_in: int, n_out: int, has_bias: bool = False) -> Linear:
            return Linear.on_meta(n_in, n_out, has_bias=has_bias, dtype=dtype)

        self.n_parameters = 0
        """Weights, counting a tied embedding once; filled by loading."""
        self.embedding = torch.empty(config.vocab_size, hidden, device="meta", dtype=dtype)
        self.layers = [
            DecoderLayer(
                input_norm=vector(hidden),
                qkv=linear(hidden, config.qkv_size, config.has_qkv_bias),
                q_norm=vector(config.head_dim) if config.has_qk_norm else None,
                k_norm=vector(config.head_dim) if config.has_qk_norm else None,
                output=linear(config.n_heads * config.head_dim, hidden, config.has_output_bias),
                mlp_norm=vector(hidden),
                gate_up=linear(hidden, 2 * middle, config.has_mlp_bias),
                down=linear(middle, hidden, config.has_mlp_bias),
                window=window,
            )
            for window in config.windows
        ]
        self.final_norm = vector(hidden)
        self.head: Projection = linear(hidden, config.vocab_size)
        self.inv_freq, self.rope_factor = rope_frequencies(config.rope, config.head_dim)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embedding.device

    @property
    def kernels(self) -> Kernels:
        """The kernels of that device."""
        return kernels_for(self.device)

    @property
    def projections(self) -> Iterator[Projection]:
        """Every weight matrix that a token is multiplied by, in the order of the forward pass."""
        for layer in self.layers:
            yield from (layer.qkv, layer.output, layer.gate_up, layer.down)
        yield self.head

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Attend,
        kernels: Kernels,
        state_layers: Sequence[int] = (),
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Hidden states of a flat batch, before the final norm, and those after each of `state_layers` (ascending).

        tokens, positions: int64 [n]; returns [n, hidden] and as many [n, hidden] as state_layers.
        """
        config, states = self.config, list[torch.Tensor]()
        cos, sin = rotary_tables(positions, self.inv_freq, self.rope_factor)
        eps = config.norm_eps
        residual = torch.nn.functional.embedding(tokens, self.embedding)
        normed = kernels.rms_norm(residual, self.layers[0].input_norm, eps)
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(normed).view(tokens.shape[0], -1, config.head_dim)
            attended = attend(index, layer, qkv, cos, sin).flatten(1)
            normed, residual = kernels.add_rms_norm(layer.output(attended), residual, layer.mlp_norm, eps)
            output = layer.down(kernels.silu_and_mul(layer.gate_up(normed)))
            if index + 1 < len(self.layers):
                normed, residual = kernels.add_rms_norm(output, residual, self.layers[index + 1].input_norm, eps)
            else:
                residual = residual + output
            if index in state_layers:
                states.append(residual)
        return residual, states

    def logits(self, hidden: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """Final norm and head: [n, hidden] to float32 [n, vocab]."""
        return self.head(kernels.rms_norm(hidden, self.final_norm, self.config.norm_eps)).float()
