"""How fast prompts are computed beside the answers that run, as far as that can be predicted. No torch."""

from collections.abc import Sequence
from math import inf

from engine.chunk_limit import ChunkLimit, Shape
from engine.config import SchedulerConfig
from engine.cost_model import CostModel
from engine.request import Request

__all__ = ["LONGEST_RUN", "Pace", "is_chunk"]

LONGEST_RUN = 16
"""So many known tokens of an answer that has begun (forced ones) go into a step beside prompts, whatever they cost."""


def is_chunk(request: Request) -> bool:
    """Whether what is to be computed of the request is a prompt's, or so much that other answers would notice."""
    most = 1 if request.computed < request.n_prompt else LONGEST_RUN
    return len(request.tokens) - request.computed > most


class Pace:
    """What the steps of one model may take, and when what waits for them will be computed.

    cost_model: predicts steps (None: chunks are as long as the budget, and waits are unknown). shares_machine: whether
    answers of another model wait for this one's steps to end; said by whoever runs several.
    """

    def __init__(self, config: SchedulerConfig, cost_model: CostModel | None) -> None:
        self._config, self._cost_model = config, cost_model
        self.shares_machine = False

    def limit(self, running: Sequence[Request], *, has_waiting: bool) -> ChunkLimit | None:
        """The limit of the next step's prompts; None where there are none, or no answer that they could delay."""
        config, cost_model = self._config, self._cost_model
        if cost_model is None:
            return None
        has_chunks, since_s = has_waiting, inf
        for request in running:
            if is_chunk(request):
                has_chunks = True
            elif len(request.tokens) > request.n_prompt:
                since_s = min(since_s, request.timeline.first_token_s)
        slowdown = None if since_s == inf else config.max_slowdown
        max_s = config.max_shared_step_s if self.shares_machine else None
        if not has_chunks or (slowdown is None and max_s is None):
            return None
        return ChunkLimit(
            cost_model,
            _streams(running),
            max_slowdown=slowdown,
            max_s=max_s,
            min_chunk=config.least_chunk,
            since_s=since_s,
        )

    def wait_s(self, n_tokens: int, running: Sequence[Request], *, has_waiting: bool) -> float:
        """Predicts in how many seconds that many waiting tokens are computed, at the pace of the next step; 0.0 where
        nothing is known."""
        if self._cost_model is None:
            return 0.0
        n, streams, limit = self._config.budget, list[Shape](), self.limit(running, has_waiting=has_waiting)
        if limit is not None:
            streams = _streams(running)
            n = limit.take(0, max(1, n - len(streams)))
        return n_tokens / n * self._cost_model.seconds(self._cost_model.step([*streams, Shape(0, n, 0)]))


def _streams(running: Sequence[Request]) -> list[Shape]:
    """What goes into the next step whatever the prompts: a token, a draft or a few forced tokens of each answer."""
    return [
        Shape(request.computed, request.remaining, 1 + len(request.tail))
        for request in running
        if not is_chunk(request)
    ]
