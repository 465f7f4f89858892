"""What a contestant can do, and the loop of its process: one task per line of input, one line of JSON per answer."""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

Tokens = list[int]
CORES = sorted(os.sched_getaffinity(0))
N_THREADS = len(CORES)
MAX_TOKENS = 2048
MAX_SEQUENCES = 16
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Contestant(ABC):
    """One engine with one checkpoint in one precision, decoding greedily with N_THREADS threads: one per core
    that the process may use.

    has_batching: many requests run at once. has_prefix_cache: a prefix is computed once for all requests.
    has_json: `generate` takes a schema.
    """

    has_batching = True
    has_prefix_cache = True
    has_json = True

    def __init__(self, checkpoint: Path, variant: str) -> None:
        """checkpoint: folder of the bfloat16 checkpoint; what is derived from it lies beside it. Loads nothing yet."""
        self.checkpoint, self.variant = checkpoint, variant

    @property
    def derived(self) -> Path:
        """Where `prepare` puts this contestant's form of the checkpoint."""
        return self.checkpoint.parent / f"{Path(sys.argv[0]).stem}-{self.variant}"

    def prepare(self) -> None:  # noqa: B027 - most contestants read the checkpoint as it is
        """Convert the checkpoint, unless that was done before. Runs in a process of its own; nobody times it."""

    @abstractmethod
    def load(self) -> None:
        """Import the engine and load the checkpoint, until the first request can be served. This is timed."""

    @abstractmethod
    def generate(self, prompts: list[Tokens], n_tokens: int, schema: dict[str, Any] | None = None) -> list[Tokens]:
        """Exactly n_tokens for each prompt, all prompts at once. schema: every answer is a prefix of its JSON."""


def serve(kind: type[Contestant]) -> None:
    """`python -m benchmarks.peers.NAME CHECKPOINT VARIANT [--prepare]`: prepare, or load and answer tasks until stdin
    ends.

    A task is `{"task": NAME, "seed": NUMBER, "vocab_size": NUMBER}`; an answer holds `seconds` (see tasks.py), or
    `error`. What an engine prints goes to stderr.
    """
    from benchmarks.peers.tasks import run

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a stopped process would outlive the driver for ever
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant = kind(Path(sys.argv[1]), sys.argv[2])
    if "--prepare" in sys.argv:
        contestant.prepare()
        return
    begun = time.perf_counter()
    contestant.load()
    _answer(answers, {"load_s": time.perf_counter() - begun})
    for line in sys.stdin:
        task = json.loads(line)
        try:
            measured = run(task["task"], contestant, task["seed"], task["vocab_size"])
        except Exception as error:  # the next task may work
            traceback.print_exc()
            _answer(answers, {"error": f"{type(error).__name__}: {error}"[:200]})
        else:
            _answer(answers, measured)


def _answer(answers: IO[str], content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)
