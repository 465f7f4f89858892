"""The process in which constraints are tried out, one after the other: whatever a constraint does, only it dies."""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from typing import NoReturn

import torch

from grammars.backends import Backends, attributed, plan_within
from grammars.errors import ConstraintRefused, MatcherFailed
from grammars.heap import heap_bytes
from grammars.probe_frames import Frames, Job, Setup, TextPlan, Verdict, encode
from grammars.vocabulary import Vocabulary

_PR_SET_PDEATHSIG = 1
_READ_BYTES = 1 << 18


def run_jobs(server: socket.socket, setup: Setup, backends: Backends, vocabulary: Vocabulary) -> NoReturn:
    """Answer each Job from `server` with a Verdict, and end the process when it ends.

    The process ends by SIGPROF where a job's CPU time passes the budget, also inside native code.
    """
    try:
        _bind(setup)
        frames = Frames(Job)
        while data := server.recv(_READ_BYTES):
            for job in frames.feed(data):
                server.sendall(encode(_run(job, setup, backends, vocabulary)))
        os._exit(0)
    except BaseException:  # a fault of ours or of a backend; the server sees the exit code
        os._exit(1)


def _run(job: Job, setup: Setup, backends: Backends, vocabulary: Vocabulary) -> Verdict:
    signal.setitimer(signal.ITIMER_PROF, setup.cpu_s)
    try:
        return _attempt(job, setup, backends, vocabulary)
    except MemoryError:
        return Verdict(job.id, "memory")
    except ConstraintRefused as error:
        return Verdict(job.id, "refused", keyword=error.keyword, pointer=error.pointer, reason=error.reason)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _attempt(job: Job, setup: Setup, backends: Backends, vocabulary: Vocabulary) -> Verdict:
    planned = plan_within(job.constraint, setup.whitespace, setup.limits, setup.size)
    before = heap_bytes()
    start = backends.start(planned)
    after = heap_bytes()
    try:
        if "xgrammar" in planned.backend:
            from grammars.probe_walk import require_fast_masks

            require_fast_masks(start, vocabulary)
        else:
            start.fork().fill(torch.zeros(vocabulary.n_words, dtype=torch.int32))
    except MatcherFailed as error:
        raise attributed(planned, error) from error
    n_bytes = None if before is None or after is None else max(0, after - before)
    return Verdict(job.id, "fits", TextPlan.of(planned), n_bytes)


def _bind(setup: Setup) -> None:
    """Put the limits on this process, as far as the platform has them."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    with open(os.devnull, "wb") as nowhere:  # what native code prints before it aborts
        os.dup2(nowhere.fileno(), 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        taken = _address_space()
        if taken is not None:
            resource.setrlimit(resource.RLIMIT_AS, (taken + setup.memory_bytes, taken + setup.memory_bytes))


def _address_space() -> int | None:
    """Bytes of address space of this process; None where the platform does not say."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None
