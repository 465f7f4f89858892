"""From a StepPlan to logits: one forward pass of one model over its paged cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from engine.attention import KVCache, StepAttention, page_dtype
from engine.config import CacheConfig, ModelConfig
from engine.fused_layers import FUSED_TOKENS, FusedLayers
from engine.graphs import StepGraphs, buckets_for, is_recordable
from engine.kv_groups import KVGroup
from engine.kv_moves import KVMoves, check_path
from engine.models.decoder import Decoder
from engine.plan import Row, StepPlan
from engine.platform import Platform
from engine.pooled_state import PooledStates
from engine.step_batch import StepBatch, n_tail


@dataclass(frozen=True, slots=True)
class RunnerOutput:
    """logits: float32 [sum n_logits, vocab], rows in the order of the plan. states: by request id, for rows that want
    one, the pooled state of the prompt, float32 [n_state_layers, 2, hidden]: its last token, and the mean over its last
    turn (PooledStates.pooled_from). hidden: where the runner keeps them, what the logits were computed from,
    [sum n_logits, hidden] in the model's dtype, before the final norm; it holds until the next step, as the logits do.
    """

    logits: torch.Tensor
    states: dict[str, torch.Tensor] = field(default_factory=dict)
    hidden: torch.Tensor | None = None


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
        platform: Platform | None = None,
        keeps_hidden: bool = False,
    ) -> None:
        """state_layers: ascending indices of the decoder layers whose outputs are pooled. is_invariant: the logits of a
        row are the same bits whatever else is in the step, given that the model's projections keep that promise too.
        platform: where it computes (None: that of the model's device). keeps_hidden: whether `RunnerOutput.hidden` is
        given.

        Raises ValueError where the cache cannot hold one block, or a state layer does not exist.
        """
        if any(not 0 <= layer < config.n_layers for layer in state_layers) or list(state_layers) != sorted(
            set(state_layers)
        ):
            raise ValueError(f"state_layers is {state_layers}: use ascending layers from 0 to {config.n_layers - 1}")
        self.config, self.model, self.state_layers, self.keeps_hidden = config, model, state_layers, keeps_hidden
        self.block_size = cache.block_size
        self.kv_dtype = page_dtype(cache.kv_dtype, model.dtype)
        self.n_blocks = cache.count_blocks(
            KVCache.bytes_per_block(config, cache.block_size, self.kv_dtype)
            + PooledStates.bytes_per_block(len(state_layers), config.hidden_size)
        )
        platform = platform or Platform.of(str(model.device))
        self.device, self.kernels = platform.device, platform.kernels(model.dtype, is_invariant)
        if cache.kv_dtype != "auto" and not self.kernels.reads_quantized:
            raise ValueError(f"kv_dtype is {cache.kv_dtype!r} and the device {self.device}: use auto on a CPU")
        self._cache = KVCache(config, self.n_blocks, cache.block_size, self.kv_dtype, self.device)
        self._fused = FusedLayers.build(model, self._cache) if self.kernels.is_native else None
        self.runs_beside = platform.runs_beside
        self._recorder = platform.recorder
        self._graphs: StepGraphs | None = None
        self._states = PooledStates(
            self.n_blocks,
            cache.block_size,
            len(state_layers),
            config.hidden_size,
            self.device,
            self.kernels,
            self._cache.groups[0],
        )

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache over all layers, with the sums of the pooled states."""
        return self._cache.n_bytes + self._states.n_bytes

    @property
    def reuses_outputs(self) -> bool:
        """Whether a step may write to where the logits of the last one lie."""
        return self._graphs is not None

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
        if self.runs_beside:
            torch.cuda.set_device(self.device)  # which GPU is current is known to each thread on its own
        if plan.copies:
            sources, targets = zip(*plan.copies, strict=True)
            self.copy_blocks(sources, targets)
        if not plan.rows:
            return RunnerOutput(self._no_logits(), hidden=self._no_hidden())
        # Torch's attention groups rows that are alike; graphs want the order of the plan.
        batch = StepBatch.from_plan(plan, self.block_size, len(self.groups), is_sorted=self._recorder is None)
        found = None if self._graphs is None else self._graphs.run(batch, drawn)
        if found is not None:
            pooled = {} if found.states is None else self._pool(batch, found.states)
            return RunnerOutput(found.logits, pooled, found.hidden)
        tensors = batch.to(self.device)
        attend = StepAttention.of(self._cache, self.config, self.kernels, batch, tensors)
        run_layers = self._fused if len(tensors.tokens) <= FUSED_TOKENS else None
        state_layers = () if all(row.is_draft for row in plan.rows) else self.state_layers
        hidden, states = self.model.forward(
            tensors.tokens, tensors.positions, attend, self.kernels, state_layers, run_layers, drawn
        )
        pooled = self._pool(batch, torch.stack(states, dim=1)) if state_layers else {}
        if not len(tensors.logits_from):
            return RunnerOutput(self._no_logits(), pooled, self._no_hidden())
        picked = hidden.index_select(0, tensors.logits_from)
        return RunnerOutput(self.model.logits(picked, self.kernels), pooled, picked if self.keeps_hidden else None)

    @torch.inference_mode()
    def record(
        self,
        max_rows: int,
        max_model_len: int,
        max_draft: int = 0,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        *,
        width: int = 1,
    ) -> None:
        """Record steps of up to max_rows rows as graphs, where the platform can, and drafts of max_draft tokens to
        verify, and the model is one whose steps can be. width: of these drafts; above 1 they may be trees, which steps
        that are recorded for chains cannot have. on_progress: graphs recorded, of how many.
        """
        if self._recorder is not None and is_recordable(self.config):
            self._graphs = StepGraphs(
                self.model,
                self._cache,
                self.kernels,
                self.state_layers,
                buckets_for(max_rows, max_draft),
                max_model_len,
                self._recorder,
                has_trees=width > 1,
                keeps_hidden=self.keeps_hidden,
                on_progress=on_progress,
            )

    @torch.inference_mode()
    def settle(self, accepted: Sequence[tuple[Row, tuple[int, ...]]]) -> None:
        """Make the verified nodes of tails what they would be had nobody drafted: keys and values lie where their
        positions are, and states count. The next step of a request relies on it, so call it before.

        accepted: rows of the last step that had a tail, and by number in the tail which of its nodes were verified,
        from the root's child on; of a chain, they are 0, 1, 2 and so on. Raises ValueError for nodes that are no such
        path, and, where states are pooled, for nodes of another step.
        """
        for row, nodes in accepted:
            check_path(row, nodes)
        if self.runs_beside:
            torch.cuda.set_device(self.device)
        moves = KVMoves.of(accepted, self.block_size, self.device)
        if moves is not None:
            moves.apply(self._cache, self.kernels)
        if self.state_layers:
            self._states.settle(accepted)

    @torch.inference_mode()
    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy blocks with all that the runner keeps for them: targets[i] becomes sources[i] in every layer."""
        self._cache.copy_pages(sources, targets)
        self._states.copy_pages(sources, targets)

    def _no_logits(self) -> torch.Tensor:
        """On the device like any others: those that were kept for resumed requests are put behind them."""
        return torch.empty(0, self.config.vocab_size, device=self.device)

    def _no_hidden(self) -> torch.Tensor | None:
        if not self.keeps_hidden:
            return None
        return torch.empty(0, self.config.hidden_size, dtype=self.model.dtype, device=self.device)

    def _pool(self, batch: StepBatch, states: torch.Tensor) -> dict[str, torch.Tensor]:
        """states: [n, layers, hidden]."""
        stacked = states.float()
        self._states.add(batch.rows, stacked)
        pooled, end = dict[str, torch.Tensor](), 0
        for row in batch.rows:
            end += row.n
            if row.wants_state:
                pooled[row.request_id] = self._states.pool(row, stacked[end - 1 - n_tail(row)])
        return pooled
