"""Trying a constraint out where it can be killed: a process of its own, with a budget of CPU time and of memory.

    compile thread --try_out--> Probe --socket--> server process (`probe_main.py`) --fork--> workers

A verdict goes by CPU time, so that a busy machine refuses nobody; the wall clock only says "later".
"""

import contextlib
import itertools
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass

from grammars.constraint import Constraint, Whitespace
from grammars.errors import CompileTimeout
from grammars.limits import Limits
from grammars.probe_frames import Frames, Job, Ready, Setup, Verdict, encode
from grammars.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 18
_START_S = 60.0
_SLACK_S = 1.0
"""The server keeps the clock of a job; this is for one that does not answer."""


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """Of one constraint that is tried out.

    cpu_s: CPU time of planning, compiling and the first mask. memory_bytes: address space beyond the vocabulary's.
    nice: steps down in priority, so that answers come first. at_once: constraints side by side.
    """

    cpu_s: float = 1.0
    memory_bytes: int = 1 << 30
    nice: int = 10
    at_once: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        if self.cpu_s <= 0:
            raise ValueError(f"cpu_s is {self.cpu_s}: use more than 0")
        if self.memory_bytes < 1 << 26 or self.at_once < 1 or not 0 <= self.nice <= 19:
            raise ValueError(
                f"memory_bytes is {self.memory_bytes}, at_once {self.at_once}, nice {self.nice}: use at least 64 MiB, "
                "at least 1, and 0 to 19"
            )


class Probe:
    """The server process of one vocabulary, started when it is needed and again when it ends. Thread-safe."""

    module = "grammars.probe_main"

    def __init__(self, vocabulary: Vocabulary, whitespace: Whitespace, limits: Limits, bounds: ProbeLimits) -> None:
        self._vocabulary, self._whitespace, self._limits, self._bounds = vocabulary, whitespace, limits, bounds
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    @staticmethod
    def is_supported() -> bool:
        """Whether this platform forks."""
        return hasattr(os, "fork")

    def start(self) -> None:
        """Start the server, in the background. Where the system gives no process, whoever asks first tries again."""
        with contextlib.suppress(CompileTimeout):
            self._running()

    def wait(self) -> None:
        """Until the server has read its vocabulary, or ended."""
        server = self._server
        if server is not None:
            server.wait()

    def try_out(self, constraint: Constraint, wall_s: float) -> Verdict:
        """How planning, compiling and the first mask end: `fits`, `refused`, `cpu`, `memory` or `crash`.

        Raises CompileTimeout where the wall clock decides, or the server cannot be kept alive.
        """
        for _ in range(3):
            verdict = self._running().ask(constraint, wall_s)
            if verdict is None:
                continue  # the server ended, which is not the constraint's doing: that runs in a worker
            if verdict.kind == "late":
                raise CompileTimeout(f"the constraint was not tried out within {wall_s:g} s: try again")
            return verdict
        raise CompileTimeout("the process that tries constraints out could not be kept alive: try again")

    def close(self) -> None:
        """End the server; whoever waits gets a CompileTimeout."""
        with self._lock:
            self._is_closed = True
            server, self._server = self._server, None
        if server is not None:
            server.end()

    def _running(self) -> "_Server":
        with self._lock:
            if self._is_closed:
                raise CompileTimeout("the compiler is closed")
            if self._server is None or self._server.is_dead:
                if self._server is not None:
                    self._server.end()
                self._server = _Server(self.module, self._setup())
                # Also where nobody closes: an abandoned process would outlive whoever wanted it.
                weakref.finalize(self, self._server.end)
            return self._server

    def _setup(self) -> Setup:
        bounds = self._bounds
        return Setup(
            tokenizer=self._vocabulary.hf.backend_tokenizer.to_str(),
            size=self._vocabulary.size,
            stop_ids=self._vocabulary.stop_ids,
            silent_ids=self._vocabulary.silent_ids,
            whitespace=self._whitespace,
            limits=self._limits,
            cpu_s=bounds.cpu_s,
            memory_bytes=bounds.memory_bytes,
            nice=bounds.nice,
            at_once=bounds.at_once,
        )


class _Server:
    """One server process, a thread that writes to it, and one that reads from it."""

    def __init__(self, module: str, setup: Setup) -> None:
        """module: what runs over there. Raises CompileTimeout where the system gives no process."""
        self._ids = itertools.count()
        self._asked: dict[int, Future[Verdict | None]] = {}
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self.is_dead = False
        try:
            self._socket, theirs = socket.socketpair()
            with theirs:
                # -P: a folder called `grammars` where somebody happens to be is not this package.
                command = [sys.executable, "-P", "-m", module, "--fd", str(theirs.fileno())]
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=_environment()
                )
        except OSError as error:
            raise CompileTimeout(f"no process to try the constraint out ({error}): try again") from error
        self._outbox.put(encode(setup))
        self._threads = [threading.Thread(target=work, name="probe", daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def wait(self) -> None:
        """Until it takes jobs, or ended."""
        self._ready.wait(_START_S)

    def ask(self, constraint: Constraint, wall_s: float) -> Verdict | None:
        """The verdict; None where the server ended first. Reading the vocabulary counts for no job."""
        future: Future[Verdict | None] = Future()
        with self._lock:
            if self.is_dead:
                return None
            number = next(self._ids)
            self._asked[number] = future
        self._outbox.put(encode(Job(number, wall_s, constraint)))
        try:
            self.wait()
            return future.result(wall_s + _SLACK_S)
        except TimeoutError:
            return Verdict(number, "late")
        finally:
            with self._lock:
                self._asked.pop(number, None)

    def end(self) -> None:
        """Kill it, and wait until it and the threads are gone. Calling it again does nothing."""
        self._process.kill()
        self._process.wait()
        self._outbox.put(None)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._socket.close()

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it ended; the reader sees that too
            while (data := self._outbox.get()) is not None:
                self._socket.sendall(data)

    def _read(self) -> None:
        frames = Frames(Ready, Verdict)
        try:
            while data := self._socket.recv(_READ_BYTES):
                for message in frames.feed(data):
                    self._take(message)
        except (OSError, ValueError) as error:
            log.warning("the probe said something unreadable: %s", error)
        with self._lock:
            self.is_dead = True
            asked = list(self._asked.values())
        self._ready.set()
        for future in asked:
            if not future.done():
                future.set_result(None)

    def _take(self, message: Ready | Verdict) -> None:
        if isinstance(message, Ready):
            self._ready.set()
            return
        with self._lock:
            future = self._asked.get(message.id)
        if future is not None:
            future.set_result(message)


def _environment() -> dict[str, str]:
    """One thread for everything: whoever forks has no others, and a job's budget is that of one core."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "1",
        "PYTHONMALLOC": "malloc",  # so that what Python takes is measured as well
        "CUDA_VISIBLE_DEVICES": "",
    }
