"""The probe's server, `python -m grammars.probe_main --fd N`: reads a vocabulary once, then forks workers for jobs.

    parent ==socket== server --socketpair-- worker (`probe_job.py`), of which `at_once` are kept

A fork takes milliseconds and shares the vocabulary, so that killing a worker costs hardly more than what it did. This
process runs nothing that a client wrote: it waits, keeps the wall clock, and ends when its socket does. It has a single
thread, as whoever forks should.
"""

import argparse
import contextlib
import gc
import os
import selectors
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch

from grammars.backends import Backends, plan_within
from grammars.constraint import JsonSchema
from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.probe_frames import Frames, Job, Ready, Setup, Verdict, encode
from grammars.probe_job import run_jobs
from grammars.vocabulary import Vocabulary

_READ_BYTES = 1 << 18
_JOBS_A_WORKER = 200
"""Then it is replaced: what it leaked, or holds in pieces, counts against the memory of later jobs."""


_FIRST: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "pattern": "^a+$", "maxLength": 9},
        "b": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "array", "items": {"format": "date"}}]},
    },
    "allOf": [{"not": {"required": ["b", "c"]}}, {"minProperties": 1}],
}


def main() -> None:
    """Serve until the socket ends."""
    parser = argparse.ArgumentParser(prog="grammars.probe_main", description="Tries constraints out for its parent.")
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the socket to the parent")
    # Ctrl-C reaches the whole process group; the parent decides when this process ends, by the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=parser.parse_args().fd) as parent:
        serve(parent)


def serve(parent: socket.socket) -> None:
    """Read the Setup, then turn jobs into verdicts until the parent is gone."""
    frames = Frames(Setup, Job)
    messages: list[Setup | Job] = []
    while not messages:
        data = parent.recv(_READ_BYTES)
        if not data:
            return
        messages += frames.feed(data)
    setup, *jobs = messages
    if not isinstance(setup, Setup):
        raise ValueError("the first message must be a Setup")
    vocabulary, backends = _load(setup)
    with contextlib.suppress(OSError):
        os.nice(setup.nice)
    gc.collect()
    gc.freeze()  # so that no worker touches, and copies, what this process holds
    server = Server(parent, frames, setup, vocabulary, backends)
    server.run([job for job in jobs if isinstance(job, Job)])


@dataclass(slots=True, eq=False)
class _Worker:
    """A forked process. job, until_s: what it works on, and when that job's wall clock ends."""

    pid: int
    socket: socket.socket
    n_jobs: int = 0
    job: Job | None = None
    until_s: float = 0.0
    frames: Frames = field(default_factory=lambda: Frames(Verdict))


class Server:
    """Jobs in, verdicts out."""

    def __init__(
        self, parent: socket.socket, frames: Frames, setup: Setup, vocabulary: Vocabulary, backends: Backends
    ) -> None:
        self._parent, self._frames, self._setup = parent, frames, setup
        self._vocabulary, self._backends = vocabulary, backends
        self._waiting: deque[tuple[Job, float]] = deque()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def run(self, jobs: list[Job]) -> None:
        """Until the parent is gone; the workers are killed then."""
        self._take(jobs)
        self._selector.register(self._parent, selectors.EVENT_READ)
        try:
            self._keep_workers()
            self._send(Ready())
            while self._step():
                pass
        finally:
            for worker in list(self._workers):
                os.kill(worker.pid, signal.SIGKILL)
                self._bury(worker)

    def _step(self) -> bool:
        """Wait for something, deal with it. False once the parent is gone."""
        self._hand_out()
        for key, _ in self._selector.select(self._patience_s()):
            if key.data is None:
                data = self._parent.recv(_READ_BYTES)
                if not data:
                    return False
                self._take(list(self._frames.feed(data)))
            else:
                self._hear(key.data)
        self._expire()
        self._keep_workers()
        return True

    def _patience_s(self) -> float | None:
        ends = [until for _, until in self._waiting]
        ends += [worker.until_s for worker in self._workers if worker.job is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _take(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        self._waiting.extend((job, now + job.wall_s) for job in jobs)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.job is None:
                worker.job, worker.until_s = self._waiting.popleft()
                worker.n_jobs += 1
                with contextlib.suppress(OSError):  # it is gone; its end of the socket says so
                    worker.socket.sendall(encode(worker.job))

    def _hear(self, worker: _Worker) -> None:
        try:
            data = worker.socket.recv(_READ_BYTES)
        except OSError:
            data = b""
        job = worker.job
        if not data:
            code = self._bury(worker)
            if job is not None:
                self._send(Verdict(job.id, _cause(code)))
            return
        for verdict in worker.frames.feed(data):
            self._send(verdict)
            worker.job = None
        if worker.job is None and worker.n_jobs >= _JOBS_A_WORKER:
            os.kill(worker.pid, signal.SIGKILL)
            self._bury(worker)

    def _expire(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.job is not None and worker.until_s <= now:
                os.kill(worker.pid, signal.SIGKILL)
                self._bury(worker)
                self._send(Verdict(worker.job.id, "late"))
        for job in [job for job, until_s in self._waiting if until_s <= now]:
            self._send(Verdict(job.id, "late"))
        self._waiting = deque(entry for entry in self._waiting if entry[1] > now)

    def _keep_workers(self) -> None:
        while len(self._workers) < self._setup.at_once:
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                self._parent.close()
                self._selector.close()
                ours.close()
                for other in self._workers:
                    other.socket.close()
                run_jobs(theirs, self._setup, self._backends, self._vocabulary)
            theirs.close()
            worker = _Worker(pid, ours)
            self._workers.append(worker)
            self._selector.register(ours, selectors.EVENT_READ, worker)

    def _bury(self, worker: _Worker) -> int:
        self._selector.unregister(worker.socket)
        worker.socket.close()
        self._workers.remove(worker)
        return os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # the parent is gone; the next read says so
            self._parent.sendall(encode(message))


def _load(setup: Setup) -> tuple[Vocabulary, Backends]:
    """What jobs share, made before the first worker is forked, so that none has to make it."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    hf = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(setup.tokenizer))
    vocabulary = Vocabulary(hf, setup.size, setup.stop_ids)
    vocabulary.__dict__["silent_ids"] = setup.silent_ids  # special tokens are no part of the tokenizer's text
    backends = Backends(vocabulary)
    backends.get("xgrammar")
    vocabulary.warm_up()
    backends.get("llguidance").spellings  # noqa: B018
    with contextlib.suppress(ConstraintRefused, MatcherFailed):
        # What is imported, read or computed for the first schema is not to be paid by each worker's first job.
        start = backends.start(plan_within(JsonSchema(_FIRST), setup.whitespace, setup.limits, setup.size))
        start.fill(torch.zeros(vocabulary.n_words, dtype=torch.int32))
    return vocabulary, backends


def _cause(code: int) -> Literal["cpu", "memory", "crash", "late"]:
    """What ended a worker that gave no verdict. A process out of address space aborts, in Rust and in C++; one that
    somebody else killed, such as a kernel short of memory, says nothing about its constraint.
    """
    match -code:
        case signal.SIGPROF:
            return "cpu"
        case signal.SIGABRT:
            return "memory"
        case signal.SIGKILL:
            return "late"
    return "crash"


if __name__ == "__main__":
    main()
