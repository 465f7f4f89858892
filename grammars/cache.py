"""A cache of compiled constraints: bounded in entries and bytes, one compilation per key, least recently used out."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

from grammars.errors import CompileTimeout, ConstraintRefused

T = TypeVar("T")


class CompileCache(Generic[T]):
    """Thread-safe. Refusals are remembered like results; timeouts and other errors are not."""

    def __init__(self, max_entries: int, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._max_entries, self._max_bytes, self._size_of = max_entries, max_bytes, size_of
        self._entries: OrderedDict[bytes, tuple[T | ConstraintRefused, int]] = OrderedDict()
        self._running: dict[bytes, Future[T]] = {}
        self._lock = Lock()
        self.n_bytes = 0
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    def knows(self, key: bytes) -> bool:
        """Whether a result or a refusal of `key` is remembered."""
        with self._lock:
            return key in self._entries

    def peek(self, key: bytes) -> T | None:
        """The remembered result of `key`, if any. Raises the remembered refusal."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
        if isinstance(entry[0], ConstraintRefused):
            raise ConstraintRefused(entry[0].keyword, entry[0].pointer, entry[0].reason)
        return entry[0]

    def get(self, key: bytes, compute: Callable[[], T], deadline_s: float) -> T:
        """The result of `key`: remembered, or computed once however many threads ask for it.

        Raises ConstraintRefused, now or remembered, and CompileTimeout when `deadline_s` runs out; the computation
        then goes on in the background, and its result is remembered.
        """
        found = self.peek(key)
        if found is not None:
            self.hits += 1
            return found
        with self._lock:
            future = self._running.get(key)
            is_first = future is None
            if future is None:
                future = self._running[key] = Future()
                self.misses += 1
        if is_first:
            Thread(target=self._run, args=(key, compute, future), daemon=True, name="compile-constraint").start()
        try:
            return future.result(deadline_s)
        except TimeoutError as error:
            raise CompileTimeout(f"the constraint was not compiled within {deadline_s} s: simplify it") from error

    def _run(self, key: bytes, compute: Callable[[], T], future: "Future[T]") -> None:
        result: T | ConstraintRefused | None = None
        try:
            result = compute()
        except ConstraintRefused as refusal:
            result = refusal
            future.set_exception(refusal)
        except BaseException as error:  # carried to whoever waits, whatever it is
            future.set_exception(error)
        with self._lock:
            del self._running[key]
            if result is not None:
                self._remember(key, result)
        if result is not None and not isinstance(result, ConstraintRefused):
            future.set_result(result)

    def _remember(self, key: bytes, result: T | ConstraintRefused) -> None:
        size = len(key) + (256 if isinstance(result, ConstraintRefused) else self._size_of(result))
        if size > self._max_bytes:
            return
        self._entries[key] = (result, size)
        self.n_bytes += size
        while len(self._entries) > self._max_entries or self.n_bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.n_bytes -= freed
