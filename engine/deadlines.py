"""When live requests must be over, the earliest first."""

import heapq

from engine.request import Request, RequestStatus

__all__ = ["Deadlines"]


class Deadlines:
    """A heap. A deadline that was changed, or whose request is over, stays in it until it is met, and is then
    skipped."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._pushes = 0  # makes entries distinct, so that requests are never compared

    def set(self, request: Request, deadline_s: float | None) -> None:
        """Replace the request's deadline; None takes it away."""
        request.deadline_s = deadline_s
        if deadline_s is not None:
            self._pushes += 1
            heapq.heappush(self._heap, (deadline_s, self._pushes, request))

    def expired(self, now_s: float) -> list[Request]:
        """Live requests whose deadline has passed, each named once."""
        late = []
        while self._heap and self._heap[0][0] <= now_s:
            deadline_s, _, request = heapq.heappop(self._heap)
            if request.status is not RequestStatus.FINISHED and request.deadline_s == deadline_s:
                request.deadline_s = None
                late.append(request)
        return late

    def earliest(self) -> float | None:
        """The next deadline of a live request."""
        while self._heap and self._heap[0][2].status is RequestStatus.FINISHED:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def most_pressing(self) -> Request | None:
        """The request with the earliest deadline among those that wait or run (those held need no steps)."""
        self.earliest()  # forgets those of requests that are over
        active = (RequestStatus.WAITING, RequestStatus.RUNNING)
        entries = (e for e in self._heap if e[2].status in active and e[2].deadline_s == e[0])
        return min(entries, default=(0.0, 0, None))[2]
