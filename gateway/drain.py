"""Counts the requests being answered, and closes the door once the server is to stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Draining(Exception):
    """The server is stopping and takes no new requests."""


class Drain:
    """One per server. Use from its event loop; `begin` may also be called from a signal handler."""

    def __init__(self, grace_s: float) -> None:
        """grace_s: how long running requests may take once draining has begun."""
        self._grace_s = grace_s
        self._began_s: float | None = None
        self.running = 0

    @property
    def begun(self) -> bool:
        """Whether new requests are refused."""
        return self._began_s is not None

    @property
    def is_over(self) -> bool:
        """Whether the server may stop: nothing runs any more, or the grace time is used up."""
        return self._began_s is not None and (self.running == 0 or time.monotonic() - self._began_s > self._grace_s)

    def begin(self) -> None:
        """Refuse new requests from now on."""
        self._began_s = self._began_s or time.monotonic()

    def enter(self) -> None:
        """Count a request in. Raises Draining; otherwise `leave` must follow."""
        if self.begun:
            raise Draining("this server is stopping: send the request again, to another one or in a moment")
        self.running += 1

    def leave(self) -> None:
        """Count a request out."""
        self.running -= 1

    @contextmanager
    def request(self) -> Iterator[None]:
        """`enter` and `leave` around a block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()
