"""A matcher that breaks, to see who is hurt."""

import itertools
from typing import Any

__all__ = ["Saboteur"]


class Saboteur:
    """Raises in its n-th call, whichever it is, and ever after.

    calls: counts them, over all that share it. only: names of the methods that are counted (None: all).
    """

    def __init__(self, inner: Any, calls: "itertools.count[int]", at: int, only: frozenset[str] | None = None) -> None:
        self._inner, self._calls, self._at, self._only = inner, calls, at, only

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if self._only is not None and name not in self._only:
            return value
        if not callable(value):
            self._count()
            return value

        def call(*args: Any) -> Any:
            self._count()
            return value(*args)

        return call

    def _count(self) -> None:
        if next(self._calls) >= self._at:
            raise RuntimeError("sabotage")
