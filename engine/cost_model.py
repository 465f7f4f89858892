"""What a step costs: operations and bytes from the model's shape, seconds from terms fitted to the steps that were
measured here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.models.config import ModelConfig
from engine.time_fit import TimeFit

__all__ = ["CostModel", "RowShape", "StepCost", "WeightBytes"]

FEW_TOKENS = 16
"""Up to here a token more costs otherwise than beyond: kernels for few rows, or rows that share a tile."""
ANCHOR_STEPS = 10.0
"""Steps that the calibration counts for, for ever; beside it some 300 recent steps count at the default half-life."""


class RowShape(Protocol):
    """What a row of a step costs depends on: `n` tokens from position `start` on, `n_logits` of them with logits."""

    @property
    def start(self) -> int:
        """Position of the first token."""
        ...

    @property
    def n(self) -> int:
        """Tokens."""
        ...

    @property
    def n_logits(self) -> int:
        """Rows of logits."""
        ...


class StepCost(NamedTuple):
    """The work of one forward pass, or of some of its rows.

    linear_flops, attention_flops: multiplications and additions, each counted, of the projections, and of scores and
    weighted sums. kv_read_bytes: whole pages, once for each row and layer that sees a key in them. weight_bytes are
    those of every projection, each read once; the vectors of norms are left out. A step of few tokens meets some of
    a mixture's experts only: there weight_bytes is an upper bound.
    """

    n_rows: int
    n_tokens: int
    n_logits: int
    linear_flops: float
    attention_flops: float
    weight_bytes: float
    embedding_bytes: float
    kv_read_bytes: float
    kv_written_bytes: float
    logits_bytes: float

    @property
    def flops(self) -> float:
        """All operations."""
        return self.linear_flops + self.attention_flops

    @property
    def bytes(self) -> float:
        """All bytes that move between memory and processor if nothing stays in a cache between two uses."""
        kv = self.kv_read_bytes + self.kv_written_bytes
        return self.weight_bytes + self.embedding_bytes + kv + self.logits_bytes


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of the projections as they lie in memory, quantised or not: of all layers together, and of the head."""

    layers: int
    head: int


class CostModel:
    """Counts a step's work, and learns how long this machine takes for it.

    seconds = fixed + few tokens + linear operations + attention operations + KV bytes read + rows, each with its own
    factor (see TimeFit). A step reads the weights once whatever its tokens, so memory traffic is the fixed part;
    arithmetic is the slope, which differs for the first tokens. Until steps are measured a cautious guess stands in.

    itemsize: bytes of one embedded number. block_size: tokens per page. token_kv_bytes: of a token's keys and values in
    one layer (None: numbers of itemsize bytes).
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: WeightBytes,
        *,
        itemsize: int,
        block_size: int,
        token_kv_bytes: int | None = None,
        half_life_steps: float = 200.0,
    ) -> None:
        self._weights, self._block_size, self._n_layers = weights, block_size, config.n_layers
        self._layer_flops, self._head_flops = (2.0 * n for n in _weights(config))
        self._pair_flops = 4 * config.n_heads * config.head_dim
        self._token_kv_bytes = token_kv_bytes or 2 * config.n_kv_heads * config.head_dim * itemsize
        self._embedding_bytes = config.hidden_size * itemsize
        self._logits_bytes = 4 * config.vocab_size
        self._groups = [(window, config.windows.count(window)) for window in dict.fromkeys(config.windows)]
        self._fit = TimeFit(6, half_life_steps)
        # The guess: 1 ms and 10 GFLOP/s.
        guessed = [(n, 0.001 + n * self._layer_flops / 10e9) for n in (1, 16, 256)]
        self._fit.anchor([([1.0, 0.0, n, 0.0, 0.0, 0.0], seconds) for n, seconds in guessed], 1.0)

    def step(self, rows: Iterable[RowShape]) -> StepCost:
        """The work of a step of these rows."""
        n_rows = n_tokens = n_logits = pairs = pages = 0
        for row in rows:
            n = row.n
            n_rows += 1
            n_tokens += n
            n_logits += row.n_logits
            row_pairs, row_pages = self._attended(row.start, n)
            pairs += row_pairs
            pages += row_pages
        return self._cost(n_rows, n_tokens, n_logits, pairs, pages * self._block_size)

    def with_row(self, cost: StepCost, start: int, n: int, n_logits: int) -> StepCost:
        """The same with one row more."""
        pairs, pages = self._attended(start, n)
        more = self._cost(1, n, n_logits, pairs, pages * self._block_size)
        weights = max(cost.weight_bytes, more.weight_bytes)
        return StepCost._make(a + b for a, b in zip(cost, more, strict=True))._replace(weight_bytes=weights)

    def seconds(self, cost: StepCost) -> float:
        """How long a step of this cost will take here; never negative."""
        return self._fit.predict(self._features(cost))

    def observe(self, cost: StepCost, seconds: float) -> None:
        """Learn from a step that was measured."""
        self._fit.observe(self._features(cost), seconds)

    def calibrate(self, measured: Sequence[tuple[StepCost, float]]) -> None:
        """Start over from these steps and their seconds, which are never quite forgotten."""
        self._fit.anchor([(self._features(cost), seconds) for cost, seconds in measured], ANCHOR_STEPS)

    def _features(self, cost: StepCost) -> list[float]:
        """What the terms of the fit multiply, in units of the model's own layers so that all are of comparable size."""
        return [
            1.0,
            float(min(cost.n_tokens, FEW_TOKENS)),
            cost.linear_flops / self._layer_flops,
            cost.attention_flops / self._layer_flops,
            cost.kv_read_bytes / self._weights.layers,
            float(cost.n_rows),
        ]

    def _attended(self, start: int, n: int) -> tuple[int, int]:
        """(query, key) pairs and pages read of a row, summed over all layers."""
        pairs = pages = 0
        end = start + n
        for window, n_layers in self._groups:
            row_pairs, first_page = n * start + n * (n + 1) // 2, 0
            if window is not None and end > window:
                before, last = max(0, start - window), end - window  # keys hidden from the query before, from the last
                row_pairs -= (last * (last + 1) - before * (before + 1)) // 2
                first_page = max(0, start - window + 1) // self._block_size
            pairs += row_pairs * n_layers
            pages += (-(-end // self._block_size) - first_page) * n_layers
        return pairs, pages

    def _cost(self, n_rows: int, n_tokens: int, n_logits: int, pairs: int, keys: int) -> StepCost:
        return StepCost(
            n_rows=n_rows,
            n_tokens=n_tokens,
            n_logits=n_logits,
            linear_flops=n_tokens * self._layer_flops + n_logits * self._head_flops,
            attention_flops=pairs * self._pair_flops,
            weight_bytes=self._weights.layers + (self._weights.head if n_logits else 0),
            embedding_bytes=n_tokens * self._embedding_bytes,
            kv_read_bytes=keys * self._token_kv_bytes,
            kv_written_bytes=n_tokens * self._n_layers * self._token_kv_bytes,
            logits_bytes=n_logits * self._logits_bytes,
        )


def _weights(config: ModelConfig) -> tuple[int, int]:
    """How many weights of the layers, and of the head, a token is multiplied by."""
    attention = config.hidden_size * (config.qkv_size + config.n_heads * config.head_dim)
    experts = config.experts
    n_sparse = 0 if experts is None else len(experts.layers)
    mlps = (config.n_layers - n_sparse) * 3 * config.hidden_size * config.intermediate_size
    if experts is not None:
        width = experts.n_active * experts.intermediate_size + (experts.shared_size or 0)
        routing = experts.n_experts + (1 if experts.shared_size else 0)
        mlps += n_sparse * config.hidden_size * (3 * width + routing)
    return config.n_layers * attention + mlps, config.hidden_size * config.vocab_size
