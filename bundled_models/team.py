"""Workers that wait for each other, and notice when one is gone."""

import time
from collections.abc import Callable

import torch

POLL_S = 0.00005


class TeamError(Exception):
    """Another worker has ended or has not come in time."""


class Team:
    """A barrier in shared memory, which also tells everybody what the leader decided.

    Each worker writes only its own counter and reads the others'. No lock, so one that is killed can't leave it held.
    """

    def __init__(self, workers: int, timeout_s: float = 900.0) -> None:
        self.timeout_s = timeout_s
        self._arrived = torch.zeros(workers, dtype=torch.int64)
        self.orders = torch.zeros(2, dtype=torch.float64)
        for tensor in (self._arrived, self.orders):
            tensor.share_memory_()  # type: ignore[no-untyped-call]

    def wait(self, worker: int, is_alive: Callable[[], bool] = lambda: True) -> None:
        """Return when everybody has called this as often as `worker`.

        Raises TeamError if `is_alive` says that another one has ended, or after `timeout_s`.
        """
        self._arrived[worker] += 1
        goal, deadline, polls = int(self._arrived[worker]), time.monotonic() + self.timeout_s, 0
        while int(self._arrived.min()) < goal:
            time.sleep(POLL_S)
            polls += 1
            if polls % 2000 == 0 and int(self._arrived.min()) < goal:
                if not is_alive():
                    raise TeamError("Another worker has ended; start the run again, it goes on from its checkpoint.")
                if time.monotonic() > deadline:
                    raise TeamError(f"Another worker did not come within {self.timeout_s:.0f} s.")
