"""How much of waiting prompts a step may compute beside running streams."""

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from engine.cost_model import CostModel, RowShape

__all__ = ["ChunkLimit", "Shape"]


class Shape(NamedTuple):
    """A row before its tokens are put together; see RowShape."""

    start: int
    n: int
    n_logits: int


class ChunkLimit:
    """Keeps the predicted seconds of a step within a limit, so that a long prompt delays running answers a little in
    many steps and not for seconds in one (chunked prefill: Agrawal et al., 2024, "Taming Throughput-Latency Tradeoff in
    LLM Inference with Sarathi-Serve"; there the chunk is a fixed number of tokens).

    streams: the rows that go into the step anyway. max_slowdown: the limit as a multiple of what they take alone, for
    prompts that arrived at or after `since_s`, the beginning of the oldest answer: a burst of requests, of which some
    already answer while others still wait, is computed at full speed. max_s: a limit in seconds, for all prompts; the
    lower one holds, None is none. min_chunk: the first chunk of a step gets so many tokens whatever they cost, so that
    prompts always advance.
    """

    def __init__(
        self,
        cost_model: CostModel,
        streams: Iterable[RowShape],
        *,
        max_slowdown: float | None,
        max_s: float | None,
        min_chunk: int,
        since_s: float = 0.0,
    ) -> None:
        self._cost_model, self._cost, self._least = cost_model, cost_model.step(streams), min_chunk
        self._since_s = since_s
        self._early_s = self._late_s = inf if max_s is None else max_s
        if max_slowdown is not None:
            self._late_s = min(self._late_s, max_slowdown * cost_model.seconds(self._cost))
        self.is_spent = False
        """Whether a chunk had to be cut, so that no other prompt should begin in this step."""

    def take(self, start: int, n: int, arrived_s: float = inf) -> int:
        """How many of the `n` tokens from position `start` on go into the step: one at least, if there is one.

        arrived_s: of the request, on the clock of since_s.
        """
        if n == 0:
            return 0
        limit_s = self._early_s if arrived_s < self._since_s else self._late_s
        least, most = min(n, 1 if self.is_spent else self._least), n
        while least < most:
            middle = (least + most + 1) // 2
            if self._seconds(start, middle) <= limit_s:
                least = middle
            else:
                most = middle - 1
        self._cost = self._cost_model.with_row(self._cost, start, least, 0)
        self._least = 1
        self.is_spent |= least < n
        return least

    def _seconds(self, start: int, n: int) -> float:
        return self._cost_model.seconds(self._cost_model.with_row(self._cost, start, n, 0))
