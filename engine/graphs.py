"""Decode and verify steps as graphs: recorded at start for a few numbers of rows, replayed without a call per kernel.

    bucket 4 x 1     row 0 | row 1 | row 2 | –         three requests decode; the fourth row is padding
    bucket 4 x 8     row 0: t f f f – – – – | …        a token and three that the grammar forced, or that were drafted

A step takes the smallest bucket that holds it. Padding writes nothing into the cache (its slot is -1), and whatever is
computed for it is not read. What is copied to the device before a replay is a few kilobytes: tokens, positions, slots,
block tables and the list of attention's work.

Where drafts may be trees, the buckets of several tokens are recorded with attention that knows trees, and take chains
as well. A tree is padded with nodes that are children of nothing but the row's keys.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.attention import KVCache, StepAttention, attention_spec
from engine.config import ModelConfig
from engine.models.decoder import Decoder
from engine.recorder import Recorder
from engine.step_batch import StepBatch
from kernels import Kernels, RaggedBatch
from kernels.staging import Staging

__all__ = ["Bucket", "GraphOutput", "StepGraphs", "buckets_for", "is_recordable"]


FORCED_TOKENS = 8
"""Tokens of a row that steps are recorded for even without drafts: constrained answers go on by several at once."""
WIDE_ROWS = 32
"""Rows of steps with several tokens a row that are recorded; beyond, a step is work enough to be launched call by
call."""


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """At most n_rows rows of at most n_queries tokens, of which all have logits."""

    n_queries: int
    n_rows: int

    @property
    def n_tokens(self) -> int:
        """Tokens with the padding."""
        return self.n_rows * self.n_queries


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """logits: float32 [sum n_logits, vocab]; states: [n, n_state_layers, hidden] of the step's tokens without padding,
    or None; hidden: [sum n_logits, hidden] before the final norm, or None. All hold until the next replay."""

    logits: torch.Tensor
    states: torch.Tensor | None
    hidden: torch.Tensor | None


def is_recordable(config: ModelConfig) -> bool:
    """Whether a model's steps can be graphs: not where it chooses experts, since the host must know which."""
    return config.experts is None


def buckets_for(max_rows: int, max_draft: int) -> list[Bucket]:
    """Buckets up to max_rows rows, the largest first: every power of two and half-way between two of them from 16 on.
    For up to WIDE_ROWS rows there are some of several tokens, too: forced ones of a grammar that follow one another,
    and drafts of at most max_draft tokens (0: none) to verify."""
    sizes = [1, 2, 4, 8]
    while sizes[-1] < max_rows:
        step = max(8, 2 ** (sizes[-1].bit_length() - 2))
        sizes.append(sizes[-1] + step)
    sizes = sorted({min(size, max_rows) for size in sizes})
    buckets = [Bucket(1, size) for size in sizes]
    buckets += [Bucket(max(FORCED_TOKENS, 1 + max_draft), size) for size in sizes if size <= WIDE_ROWS]
    return sorted(buckets, key=lambda bucket: bucket.n_tokens, reverse=True)


class _StepGraph:
    """One bucket: tensors that stay where they are, and what computes a step from them."""

    def __init__(
        self,
        bucket: Bucket,
        model: Decoder,
        cache: KVCache,
        kernels: Kernels,
        state_layers: tuple[int, ...],
        table_width: int,
        shared: "_Shared",
        recorder: Recorder,
        *,
        has_trees: bool,
        keeps_hidden: bool,
    ) -> None:
        if kernels.prepare_bucket is None:
            raise ValueError("the device's kernels cannot be recorded: run its steps without graphs")
        self.bucket, self._shared = bucket, shared
        n, device = bucket.n_tokens, model.device
        names = [f"slots {group}" for group in range(len(cache.groups))]
        padded = dict.fromkeys(("tokens", "positions", *names), ((bucket.n_rows, bucket.n_queries), torch.int64))
        # Where the step's tokens, and its rows of logits, lie in the padded batch.
        places = dict.fromkeys(("place", "picked"), ((n,), torch.int64))
        self._staging = Staging({**padded, **places}, device)
        flat = {name: self._staging.tensors[name].view(n) for name in padded}
        for name in names:
            flat[name].fill_(-1)
        self._attention = [
            kernels.prepare_bucket(
                bucket.n_rows,
                bucket.n_queries,
                table_width,
                cache.block_size,
                attention_spec(model.config, group),
                device,
                has_trees=has_trees and bucket.n_queries > 1,
            )
            for group in cache.groups
        ]
        slots = [kernels.prepare_slots(flat[name], cache.n_kv_heads, cache.block_size) for name in names]
        attend = StepAttention(cache, model.config, kernels, slots, self._attention)
        self._states: torch.Tensor | None = None
        self._hidden: torch.Tensor | None = None

        def work() -> None:
            hidden, states = model.forward(
                flat["tokens"], flat["positions"], attend, kernels, state_layers, drawn=shared.drawn
            )
            model.logits(hidden, kernels, out=shared.logits[:n])
            self._states = torch.stack(states, 1) if states else None
            self._hidden = hidden if keeps_hidden else None

        self._replay = recorder.record(work)

    def run(self, batch: StepBatch, drawn: torch.Tensor | None) -> GraphOutput | None:
        """Compute a step that the bucket holds; None where attention's lists do not hold it."""
        n_queries, n_rows = self.bucket.n_queries, len(batch.rows)
        lengths = np.array(batch.ragged[0].query_lens)
        is_full = bool((lengths == n_queries).all())
        ragged = batch.ragged if is_full else tuple(_padded(each, n_queries) for each in batch.ragged)
        if not all(attention.refill(each) for attention, each in zip(self._attention, ragged, strict=True)):
            return None
        is_token = np.arange(n_queries) < lengths[:, None]  # [rows, n_queries]
        arrays = self._staging.arrays()
        arrays["tokens"][:] = 0
        arrays["tokens"][:n_rows][is_token] = batch.tokens
        arrays["positions"][:] = 0
        arrays["positions"][:n_rows][is_token] = batch.positions
        for group, slots in enumerate(batch.slots):
            arrays[f"slots {group}"][:] = -1
            arrays[f"slots {group}"][:n_rows][is_token] = slots
        place = np.flatnonzero(is_token)
        arrays["place"][: len(place)] = place
        arrays["picked"][: len(batch.logits_from)] = place[batch.logits_from]
        self._staging.send()
        if drawn is not None:
            self._shared.drawn[: len(drawn)].copy_(drawn)
        self._replay()
        logits, states, hidden, n = self._shared.logits, self._states, self._hidden, n_rows * n_queries
        if is_full and len(batch.logits_from) == n:
            first = (None if each is None else each[:n] for each in (states, hidden))
            return GraphOutput(logits[:n], *first)
        picked = self._staging.tensors["picked"][: len(batch.logits_from)]
        tokens = self._staging.tensors["place"][: len(place)]
        return GraphOutput(
            logits.index_select(0, picked),
            None if states is None else states.index_select(0, tokens),
            None if hidden is None else hidden.index_select(0, picked),
        )


def _padded(batch: RaggedBatch, n_queries: int) -> RaggedBatch:
    """The same rows with n_queries queries each: those beyond a row's own see keys that nobody has written, in whatever
    page, and nobody reads what they attend to."""
    firsts = [context - n for n, context in zip(batch.query_lens, batch.context_lens, strict=True)]
    contexts = tuple(first + n_queries for first in firsts)
    tables = tuple(
        table + (0,) * (-(-context // batch.block_size) - len(table))
        for table, context in zip(batch.block_tables, contexts, strict=True)
    )
    trees = tuple(
        tree + tuple(1 << node for node in range(len(tree), len(tree) + n_queries - n)) if tree else tree
        for tree, n in zip(batch.trees, batch.query_lens, strict=False)
    )
    return RaggedBatch((n_queries,) * len(firsts), contexts, tables, batch.block_size, trees)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the graphs of a model write to and read from, one at a time. logits: float32 [tokens, vocab]; drawn:
    int64."""

    logits: torch.Tensor
    drawn: torch.Tensor


class StepGraphs:
    """The graphs of one model over one cache."""

    def __init__(
        self,
        model: Decoder,
        cache: KVCache,
        kernels: Kernels,
        state_layers: tuple[int, ...],
        buckets: Sequence[Bucket],
        max_model_len: int,
        recorder: Recorder,
        *,
        has_trees: bool = False,
        keeps_hidden: bool = False,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """buckets: the largest first, so that the others find room in its memory. has_trees: whether those of several
        tokens may be draft trees. keeps_hidden: whether `GraphOutput.hidden` is given. on_progress: graphs recorded,
        of how many."""
        self._has_trees = has_trees
        most = max(bucket.n_tokens for bucket in buckets)
        self._shared = _Shared(
            torch.empty(most, model.config.vocab_size, device=model.device),
            torch.zeros(2 * max(bucket.n_rows for bucket in buckets), dtype=torch.int64, device=model.device),
        )
        longest = max_model_len + max(bucket.n_queries for bucket in buckets)
        width = -(-longest // cache.block_size)
        self._graphs: dict[Bucket, _StepGraph] = {}
        on_progress(0, len(buckets))
        for bucket in buckets:
            self._graphs[bucket] = _StepGraph(
                bucket,
                model,
                cache,
                kernels,
                state_layers,
                width,
                self._shared,
                recorder,
                has_trees=has_trees,
                keeps_hidden=keeps_hidden,
            )
            on_progress(len(self._graphs), len(buckets))
        self._ascending = sorted(self._graphs, key=lambda bucket: (bucket.n_tokens, bucket.n_queries))

    def run(self, batch: StepBatch, drawn: torch.Tensor | None = None) -> GraphOutput | None:
        """Compute a step whose rows lie in the order of its plan, or None where no graph holds it."""
        if any(row.n_logits == 0 for row in batch.rows) or (drawn is not None and len(drawn) > len(self._shared.drawn)):
            return None
        if batch.ragged[0].trees and not self._has_trees:
            return None
        n_rows, n_queries = len(batch.rows), max(batch.ragged[0].query_lens)
        fitting = (b for b in self._ascending if b.n_rows >= n_rows and b.n_queries >= n_queries)
        bucket = next(fitting, None)
        return None if bucket is None else self._graphs[bucket].run(batch, drawn)
