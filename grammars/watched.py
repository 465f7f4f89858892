"""A backend without limits of its own, held to a time: its calls run on other threads, and are given up when too long.

xgrammar's masks and steps can take minutes in an ambiguous grammar, and nothing interrupts them. They release the
interpreter lock, so whoever waits for them can stop waiting: the thread is left to itself, with the state it works on.
"""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from grammars.errors import MatcherFailed
from grammars.matcher import BackendState

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_SLOW_S: Final = 0.05
_STRIKES: Final = 3
_GIVE_UP_S: Final = 0.25
_MOST_LOST: Final = 4
_REPEATING: Final = 4
"""So many times as long as a step may take it to repeat all that an answer took so far."""


class WatchedThreads:
    """Threads for calls that may never end. Thread-safe."""

    def __init__(self, give_up_s: float = _GIVE_UP_S, most_lost: int = _MOST_LOST) -> None:
        """give_up_s: CPU time after which a call is given up. most_lost: calls that may run on, given up, at once."""
        self._give_up_s, self._most_lost = give_up_s, most_lost
        self._idle: list[_Worker] = []
        self._n_lost = 0
        self._lock = threading.Lock()

    def call(self, work: Callable[[], T], patience: float = 1) -> tuple[T, float]:
        """The result, and the CPU time that it took. Raises MatcherFailed when it is given up, or too many were.

        patience: so many times the usual CPU time is granted.
        """
        give_up_s = patience * self._give_up_s
        with self._lock:
            if self._n_lost >= self._most_lost:
                raise MatcherFailed("too many other grammars run away at this moment")
            worker = self._idle.pop() if self._idle else _Worker()
        outcome = worker.call(work, give_up_s)
        if outcome is None:
            with self._lock:
                self._n_lost += 1
            worker.leave(self._found_again)
            raise MatcherFailed(f"a step of the grammar takes more than {give_up_s:g} s")
        with self._lock:
            self._idle.append(worker)
        result, cpu_s = outcome
        if isinstance(result, BaseException):
            raise result
        return result, cpu_s

    def close(self) -> None:
        """End the idle threads."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.leave(None)

    def _found_again(self) -> None:
        with self._lock:
            self._n_lost -= 1


class _Worker:
    """One thread, which does one thing at a time."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, float]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="watched", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Any], give_up_s: float) -> tuple[Any, float] | None:
        """(result or exception, CPU seconds); None when it has used up `give_up_s`, and still runs."""
        before_s = self._cpu_s()
        self._todo.put(work)
        while True:
            try:
                return self._done.get(timeout=give_up_s)
            except Empty:
                # A thread that got no core has done nothing wrong.
                if self._cpu_s() - before_s >= 0.8 * give_up_s:
                    return None

    def leave(self, when_done: Callable[[], None] | None) -> None:
        """End the thread once it is done, and say so."""
        if when_done is not None:
            self._todo.put(when_done)
        self._todo.put(None)

    def _cpu_s(self) -> float:
        """CPU time of the thread; wall time where the platform does not tell it."""
        if not hasattr(time, "pthread_getcpuclockid") or self._thread.ident is None:
            return time.monotonic()
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))

    def _run(self) -> None:
        while (work := self._todo.get()) is not None:
            began = time.thread_time()
            try:
                result = work()
            except BaseException as error:  # carried to whoever waits, whatever it is
                result = error
            self._done.put((result, time.thread_time() - began))
            del work, result


class WatchedState:
    """A state whose masks and steps are watched.

    Whatever raises leaves it where it stood, even when the inner state is lost to a call that was given up: then
    another one is led there from the start, once it is asked for anything more. So a guess that is too much for the
    grammar costs the answer nothing. Slow masks and steps are counted by their place, and forgotten when that is
    undone: a rejected guess is no strike against the answer.
    """

    __slots__ = ("_slow", "_start", "_state", "_taken", "_threads")

    def __init__(
        self,
        start: BackendState,
        threads: WatchedThreads,
        state: BackendState | None = None,
        taken: Sequence[int] = (),
    ) -> None:
        """start: is only ever copied. state: after the tokens `taken`; None where it has to be made."""
        self._start, self._threads, self._state = start, threads, state
        self._taken = list(taken)
        self._slow: set[int] = set()  # places, as numbers of tokens, where the mask or the step that led there was slow

    def fill(self, row: "torch.Tensor") -> None:
        """Set the bits of legal tokens. Raises MatcherFailed when that takes too long, at once or several times."""
        own = row.clone()  # a call that was given up must not write into somebody's row
        _, cpu_s = self._watch(lambda state: state.fill(own))
        if self._is_spent(cpu_s):
            raise _slow(cpu_s)
        row.copy_(own)

    def advance(self, token_id: int) -> bool:
        """Take a token; an illegal one leaves the state as it is. Raises MatcherFailed as `fill`, and then does so,
        too."""
        is_legal, cpu_s = self._watch(lambda state: state.advance(token_id))
        if not is_legal:
            return False
        self._taken.append(token_id)
        if self._is_spent(cpu_s):
            self.rollback(1)
            raise _slow(cpu_s)
        return True

    def rollback(self, n: int) -> None:
        """Undo `n` tokens."""
        if self._state is not None:
            self._state.rollback(n)
        del self._taken[len(self._taken) - n :]
        if self._slow:
            self._slow = {place for place in self._slow if place <= len(self._taken)}

    def fork(self) -> "WatchedState":
        """An independent copy."""
        state = None if self._state is None else self._state.fork()
        return WatchedState(self._start, self._threads, state, self._taken)

    def forced_bytes(self) -> bytes:
        """The bytes that must come next."""
        return self._found().forced_bytes()

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole sentence."""
        return self._found().is_accepting

    def _watch(self, work: Callable[[BackendState], T]) -> tuple[T, float]:
        """The result, and the CPU time."""
        state = self._found()
        self._state = None  # a call that is given up goes on with it
        outcome = self._threads.call(lambda: work(state))
        self._state = state
        return outcome

    def _found(self) -> BackendState:
        """The inner state, made anew where it was lost."""
        if self._state is None:
            state, taken = self._start.fork(), tuple(self._taken)
            if taken and not self._threads.call(lambda: all(map(state.advance, taken)), _REPEATING)[0]:
                raise MatcherFailed("the grammar refuses what it took before")
            self._state = state
        return self._state

    def _is_spent(self, cpu_s: float) -> bool:
        """Whether the mask or step that led here was one slow one too many."""
        if cpu_s < _SLOW_S:
            return False
        self._slow.add(len(self._taken))
        return len(self._slow) >= _STRIKES


def _slow(cpu_s: float) -> MatcherFailed:
    return MatcherFailed(f"a step of the grammar takes {1000 * cpu_s:.0f} ms, as others did before")


class WatchedBackend:
    """A backend whose states are watched."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._threads = WatchedThreads()

    def warm_up(self) -> None:
        """See the backend."""
        self._backend.warm_up()

    def compile(self, source: str) -> WatchedState:
        """The start state. Raises what the backend raises."""
        return WatchedState(self._backend.compile(source), self._threads)
