"""The probe's server with a backend that does what the text of a constraint says; run as a module."""

import argparse
import os
import signal
import socket
import time
from typing import Any

from grammars import probe_main
from grammars.backends import Backends
from grammars.planner import Plan
from grammars.probe_frames import Setup
from grammars.vocabulary import Vocabulary


class Idle:
    """A state that allows nothing in particular."""

    def fork(self) -> "Idle":
        return self

    def fill(self, _row: Any) -> None:
        return


class Bare(Vocabulary):
    """A vocabulary without its tokenizer, which takes a second to load."""

    def __init__(self, setup: Setup) -> None:
        self.size, self.stop_ids, self.n_words = setup.size, setup.stop_ids, (setup.size + 31) // 32
        self.__dict__["silent_ids"] = setup.silent_ids


class Faulty(Backends):
    """Every fault that native code can have."""

    def start(self, planned: Plan) -> Any:
        source = planned.source
        if "abort" in source:
            os.abort()
        if "crash" in source:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "spin" in source:
            pow(3, 10**9)  # one call into native code, which no signal handler in Python interrupts
        if "allocate" in source:
            bytearray(1 << 31)
        if "sleep" in source:
            time.sleep(60)
        return Idle()


def load(setup: Setup) -> tuple[Vocabulary, Backends]:
    """Nothing has to be read."""
    vocabulary = Bare(setup)
    return vocabulary, Faulty(vocabulary)


if __name__ == "__main__":
    probe_main._load = load
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int)
    with socket.socket(fileno=parser.parse_args().fd) as parent:
        probe_main.serve(parent)
