"""Masks that were computed before: bounded in bytes, least recently used out."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class KnownMasks:
    """Rows by what decides them, for all constraints of one vocabulary. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._lock = Lock()
        self.n_bytes = 0
        self.hits = self.misses = 0

    def get(self, key: Hashable) -> "torch.Tensor | None":
        """The row of `key`, which nobody may write into."""
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                self.misses += 1
                return None
            self.hits += 1
            self._rows.move_to_end(key)
            return row

    def put(self, key: Hashable, row: "torch.Tensor") -> None:
        """Remember a copy of `row`."""
        size = row.numel() * row.element_size() + 512
        with self._lock:
            if key in self._rows or size > self._max_bytes:
                return
            self._rows[key] = row.clone()
            self.n_bytes += size
            while self.n_bytes > self._max_bytes:
                self._rows.popitem(last=False)
                self.n_bytes -= size
