"""What a step costs: operations and bytes from the model's shape, seconds from a line fitted to the steps measured
here."""

from dataclasses import dataclass

from engine.models.config import ModelConfig

__all__ = ["CostModel", "StepCost"]


@dataclass(frozen=True, slots=True)
class StepCost:
    """One forward pass. flops: multiplications and additions, each counted; bytes: weights and pages read, pages
    written."""

    flops: float
    bytes: float


class CostModel:
    """Counts a step's work, and learns how long this machine takes for it.

    seconds = fixed + flops * rate, by least squares over exponentially weighted past steps. A step's weights are read
    once whatever its tokens, so memory traffic is the fixed part and arithmetic the slope. Until steps were measured
    the line goes through a cautious guess.

    weight_itemsize, kv_itemsize: bytes of one weight and of one cached number.
    """

    def __init__(
        self, config: ModelConfig, *, weight_itemsize: float, kv_itemsize: float, half_life_steps: float = 200.0
    ) -> None:
        attention = config.hidden_size * (config.qkv_size + config.n_heads * config.head_dim)
        mlp = 3 * config.hidden_size * config.intermediate_size
        self._layer_weights = config.n_layers * (attention + mlp)
        self._head_weights = config.vocab_size * config.hidden_size
        self._pair_flops = 4 * config.n_layers * config.n_heads * config.head_dim
        self._token_kv_bytes = 2 * config.n_layers * config.n_kv_heads * config.head_dim * kv_itemsize
        self._weight_itemsize = weight_itemsize
        self._decay = 0.5 ** (1 / half_life_steps)
        # Weighted sums over (flops, seconds) pairs: n, x, y, xx, xy. The guess: 1 ms and 10 GFLOP/s, worth two steps.
        unit = 2.0 * self._layer_weights
        guess = [(0.0, 0.001), (100 * unit, 0.001 + 100 * unit / 10e9)]
        self._sums = [2.0, *(sum(f(x, y) for x, y in guess) for f in (_x, _y, _xx, _xy))]

    @property
    def n_parameters(self) -> int:
        """Weights that a step with logits multiplies by (norms and biases left out)."""
        return self._layer_weights + self._head_weights

    def step(self, *, n_tokens: int, n_pairs: int, n_keys: int, n_logits: int) -> StepCost:
        """The work of a step.

        n_pairs: (query, key) pairs that its tokens attend over; n_keys: keys that its rows read from their pages;
        n_logits: rows of logits.
        """
        flops = 2.0 * (n_tokens * self._layer_weights + n_logits * self._head_weights) + self._pair_flops * n_pairs
        weights = (self._layer_weights + (self._head_weights if n_logits else 0)) * self._weight_itemsize
        return StepCost(flops, weights + (n_keys + n_tokens) * self._token_kv_bytes)

    def observe(self, cost: StepCost, seconds: float) -> None:
        """Learn from a step that was measured."""
        x, y = cost.flops, seconds
        new = (1.0, _x(x, y), _y(x, y), _xx(x, y), _xy(x, y))
        self._sums = [self._decay * old + value for old, value in zip(self._sums, new, strict=True)]

    def seconds(self, cost: StepCost) -> float:
        """How long a step of this cost will take here; never negative."""
        fixed, rate = self._line()
        return fixed + rate * cost.flops

    def drain_s(self, n_tokens: int, token_budget: int) -> float:
        """Seconds until `n_tokens` queued tokens are computed in full steps of `token_budget`."""
        full = self.step(n_tokens=token_budget, n_pairs=0, n_keys=0, n_logits=1)
        return self.seconds(full) * n_tokens / token_budget

    def _line(self) -> tuple[float, float]:
        """(seconds of an empty step, seconds per operation), neither negative."""
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        rate = (n * xy - x * y) / spread if spread > 1e-9 * n * xx else 0.0
        if rate < 0.0:
            return y / n, 0.0
        fixed = (y - rate * x) / n
        return (fixed, rate) if fixed >= 0.0 else (0.0, xy / xx)


def _x(x: float, _y: float) -> float:
    return x


def _y(_x: float, y: float) -> float:
    return y


def _xx(x: float, _y: float) -> float:
    return x * x


def _xy(x: float, y: float) -> float:
    return x * y
