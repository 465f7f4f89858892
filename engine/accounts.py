"""What of a request was computed, and what the prefix cache spared it. No torch."""

from engine.block_tables import PrefixHit
from engine.request import Request
from engine.stats import Counters

__all__ = ["Accounts"]


class Accounts:
    """Counts positions, in the timeline of their request and for the whole model: computed for the first time, computed
    again after a preemption, or found in the prefix cache. `Request.furthest` tells the first from the second."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def hit(self, request: Request, hit: PrefixHit) -> None:
        """Count what the prefix cache gave a request that was just placed."""
        counters, timeline = self._counters, request.timeline
        counters.prefix_queries += 1
        counters.prefix_hits += request.computed > 0
        counters.tokens_copied += hit.n_copied
        if timeline.cache_miss is None:
            timeline.cache_miss = hit.miss
            counters.prefix_misses[hit.miss.value] += 1
        # After a preemption it may be more than the request ever had: others computed it meanwhile.
        new_prompt = max(0, min(request.computed, request.n_prompt) - request.furthest)
        request.furthest = max(request.furthest, request.computed)
        timeline.cached_tokens += new_prompt
        counters.prompt_tokens_cached += new_prompt

    def computed(self, request: Request, start: int, end: int) -> None:
        """Count positions start … end-1 as computed by a step: for the first time, or again."""
        again = max(0, min(end, request.furthest) - start)
        new_prompt = max(0, min(end, request.n_prompt) - max(start, request.furthest))
        request.furthest = max(request.furthest, end)
        counters, timeline = self._counters, request.timeline
        timeline.steps += 1
        timeline.recomputed_tokens += again
        timeline.computed_tokens += new_prompt
        counters.tokens_recomputed += again
        counters.prompt_tokens_computed += new_prompt
