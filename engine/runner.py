"""From a StepPlan to logits: one forward pass of one model over its paged cache."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from engine.attention import KVCache, StepAttention
from engine.config import CacheConfig, ModelConfig
from engine.fused_layers import FUSED_TOKENS, FusedLayers
from engine.kv_groups import KVGroup
from engine.models.decoder import Decoder
from engine.plan import StepPlan
from engine.pooled_state import PooledStates
from engine.step_batch import StepBatch
from kernels import kernels_for


@dataclass(frozen=True, slots=True)
class RunnerOutput:
    """logits: float32 [sum n_logits, vocab], rows in the order of the plan. states: by request id, for rows that want
    one, the pooled state of the prompt, float32 [n_state_layers, 2, hidden]: its last token, and the mean over its
    tokens."""

    logits: torch.Tensor
    states: dict[str, torch.Tensor] = field(default_factory=dict)


class ModelRunner:
    """A model and its pages. Rows of any kind mix in one step: prompt chunks, decodes, drafts to verify."""

    def __init__(
        self,
        config: ModelConfig,
        model: Decoder,
        cache: CacheConfig,
        state_layers: tuple[int, ...] = (),
        *,
        is_invariant: bool = False,
    ) -> None:
        """state_layers: ascending indices of the decoder layers whose outputs are pooled. is_invariant: the logits of a
        row are the same bits whatever else is in the step, given that the model's projections keep that promise too.

        Raises ValueError where the cache cannot hold one block, or a state layer does not exist.
        """
        if any(not 0 <= layer < config.n_layers for layer in state_layers) or list(state_layers) != sorted(
            set(state_layers)
        ):
            raise ValueError(f"state_layers is {state_layers}: use ascending layers from 0 to {config.n_layers - 1}")
        self.config, self.model, self.state_layers = config, model, state_layers
        self.block_size = cache.block_size
        self.n_blocks = cache.count_blocks(
            KVCache.bytes_per_block(config, cache.block_size, model.dtype.itemsize)
            + PooledStates.bytes_per_block(len(state_layers), config.hidden_size)
        )
        self._device = model.device
        self._kernels = kernels_for(model.device, model.dtype, is_invariant=is_invariant)
        self._cache = KVCache(config, self.n_blocks, cache.block_size, model.dtype, self._device)
        self._fused = FusedLayers.build(model, self._cache)
        self._states = PooledStates(
            self.n_blocks, cache.block_size, len(state_layers), config.hidden_size, self._device
        )

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache over all layers, with the sums of the pooled states."""
        return self._cache.n_bytes + self._states.n_bytes

    @property
    def groups(self) -> tuple[KVGroup, ...]:
        """The KV groups, for each of which a row needs a block table."""
        return self._cache.groups

    @torch.inference_mode()
    def run(self, plan: StepPlan, drawn: torch.Tensor | None = None) -> RunnerOutput:
        """Compute a step: writes K and V of its tokens into their pages, returns logits where rows ask for them.

        drawn: int64 [n], the draws of the step before, where rows refer to them (see `Row`). They stay on the device.
        Raises ValueError for a plan whose rows do not fit their blocks.
        """
        if plan.copies:
            sources, targets = zip(*plan.copies, strict=True)
            self.copy_blocks(sources, targets)
        if not plan.rows:
            return RunnerOutput(torch.empty(0, self.config.vocab_size))
        batch = StepBatch.from_plan(plan, self.block_size, len(self.groups), self._device)
        attend = StepAttention(self._cache, batch, self.config, self._kernels)
        run_layers = self._fused if len(batch.tokens) <= FUSED_TOKENS else None
        hidden, states = self.model.forward(
            batch.tokens, batch.positions, attend, self._kernels, self.state_layers, run_layers, drawn
        )
        pooled = self._pool(batch, states) if self.state_layers else {}
        if not len(batch.logits_from):
            return RunnerOutput(torch.empty(0, self.config.vocab_size), pooled)
        return RunnerOutput(self.model.logits(hidden.index_select(0, batch.logits_from), self._kernels), pooled)

    @torch.inference_mode()
    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy blocks with all that the runner keeps for them: targets[i] becomes sources[i] in every layer."""
        self._cache.copy_pages(sources, targets)
        self._states.copy_pages(sources, targets)

    def _pool(self, batch: StepBatch, states: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        stacked = torch.stack(states, dim=1).float()  # [n, layers, hidden]
        self._states.add(batch.rows, stacked, batch.slots[0])
        pooled, end = dict[str, torch.Tensor](), 0
        for row in batch.rows:
            end += row.n
            if row.wants_state:
                pooled[row.request_id] = self._states.pool(row, stacked[end - 1])
        return pooled
