"""Work done item by item in a process that may be killed: for engines that hang, crash or eat the processor."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# What every child needs and is slow to import: the server that children are forked from imports it once.
_PRELOADED: Final = ["torch", "transformers", "numpy", "llguidance", "llguidance.hf", "jsonschema_rs"]
_START_S: Final = 120.0
_LOOK_S: Final = 0.25  # how often a child that has not answered yet is looked at


@dataclass(frozen=True, slots=True)
class Killed:
    """An item whose process ended. cause: `cpu` or `wall` (its limit), or how it ended by itself: `signal 11`."""

    cause: str


@dataclass(slots=True)
class Killable(Generic[Item, Result]):
    """Maps items to results in a child process, which is replaced when it dies.

    make: called once in each child, gives the function of one item; both must be importable by name. cpu_s:
    seconds of processor time that one item may use in the child, watched from outside: with a limit set inside
    (`RLIMIT_CPU`), Linux counts processor time in ticks of 4 ms, and nothing short could be measured any more. wall_s:
    seconds after which the child is killed although it uses no processor, such as in a deadlock.
    """

    make: Callable[[], Callable[[Item], Result]]
    cpu_s: float
    wall_s: float

    def map(self, items: Sequence[Item]) -> Iterator[Result | Killed]:
        """A result per item, in order. Raises RuntimeError when `make` itself fails."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        at = 0
        while at < len(items):
            child = _Child(context, self)
            try:
                while at < len(items):
                    outcome = child.ask(items[at], self.cpu_s, self.wall_s)
                    at += 1
                    yield outcome
                    if isinstance(outcome, Killed):
                        break
            finally:
                child.end()


class _Child:
    """One process and the pipe to it."""

    def __init__(self, context: ForkServerContext, work: Killable[Any, Any]) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work.make), daemon=True)
        self._process.start()
        theirs.close()
        try:
            if not self._pipe.poll(_START_S) or self._pipe.recv() != "ready":
                raise EOFError
        except EOFError:
            self.end()
            raise RuntimeError(f"the child did not start: exit code {self._process.exitcode}") from None

    def ask(self, item: Any, cpu_s: float, wall_s: float) -> Any:
        """The result of one item, or why there is none."""
        deadline, cpu_limit_s = time.monotonic() + wall_s, self._cpu_s() + cpu_s
        try:
            self._pipe.send(item)
            while not self._pipe.poll(_LOOK_S):
                if self._cpu_s() > cpu_limit_s:
                    return Killed("cpu")
                if time.monotonic() > deadline:
                    return Killed("wall")
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode or 0
            return Killed(f"signal {-code}" if code < 0 else f"exit {code}")

    def _cpu_s(self) -> float:
        """Processor time of the child so far, all of its threads; 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Kill the process, if it is still there, and wait for it."""
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """The child: one item in, one result out, until the pipe closes."""
    function = make()
    pipe.send("ready")
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(function(item))
