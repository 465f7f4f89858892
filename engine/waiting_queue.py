"""Requests that wait to be admitted, in the order of their ranks. No torch."""

import heapq

from engine.request import Request

__all__ = ["WaitingQueue"]


class WaitingQueue:
    """A heap by rank. A request that leaves, or whose rank changes, leaves its entry behind until that comes up.

    n_tokens: what waiting requests have still to compute, by the count when they came.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, int], int, Request]] = []
        self._waiting: dict[str, Request] = {}
        self._pushes = 0  # makes entries distinct, so that requests are never compared
        self.n_tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, request: Request) -> None:
        """Let a request wait; its rank is set."""
        self._waiting[request.id] = request
        request.queued_tokens = len(request.tokens) - request.computed
        self.n_tokens += request.queued_tokens
        self._pushes += 1
        heapq.heappush(self._heap, (request.rank, self._pushes, request))

    def first(self) -> Request | None:
        """The request that is served next, if any waits."""
        while self._heap:
            rank, _, request = self._heap[0]
            if self._waiting.get(request.id) is request and rank == request.rank:
                return request
            heapq.heappop(self._heap)
        return None

    def leave(self, request: Request) -> None:
        """Take a request out; one that does not wait is ignored."""
        if self._waiting.get(request.id) is request:
            del self._waiting[request.id]
            self.n_tokens -= request.queued_tokens
            request.queued_tokens = 0

    def n_tokens_before(self, rank: tuple[float, int]) -> int:
        """What has still to be computed of those that are served before this rank."""
        return sum(request.queued_tokens for request in self._waiting.values() if request.rank < rank)
