"""The child process of `child.py`: `python -m engine.worker --fd N --heartbeat-fd M`, where N is its end of a
socketpair and M its heartbeat page.

It reads its PairConfig, loads the models, says Ready, then turns commands into events until it is told to shut down or
the socket ends. One thread reads, one writes; the core steps on the main thread and never waits for either.
"""

import argparse
import faulthandler
import gc
import logging
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence

from engine.core import EngineCore
from engine.framing import FrameDecoder, encode
from engine.heartbeat import HeartbeatPage
from engine.messages import Command, Event, Failed
from engine.pair import load_engine
from engine.pair_config import PairConfig

__all__ = ["main"]

_READ_BYTES = 2**18


def main() -> int:
    """Serve until the end; returns the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="engine.worker", description="Runs an engine for the process that started it."
    )
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the socket to the parent")
    parser.add_argument("--heartbeat-fd", type=int, required=True, help="file descriptor of the heartbeat page")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # before it kills a loop that hangs, the parent asks where
    # Ctrl-C reaches the whole process group; the parent decides when this process ends, by the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=arguments.fd) as parent:
        return _serve(parent, HeartbeatPage(arguments.heartbeat_fd))


def _serve(parent: socket.socket, heartbeat: HeartbeatPage) -> int:
    config, commands = _read_config(parent)
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    writer = _Writer(parent)
    try:
        loaded = load_engine(config)
    except (OSError, ValueError) as error:
        writer.send([Failed(id="", code="load_failed", message=str(error))])
        writer.close()
        return 2
    core = loaded.core
    core.warm()  # first: after a restart no client's time limit is to pay for it
    gc.collect()
    gc.freeze()  # a full collection would walk all that was loaded: 100 to 250 ms in which no step begins
    writer.send([loaded.ready()])
    threading.Thread(target=_read_commands, args=(parent, commands, core), name="commands", daemon=True).start()
    try:
        core.run(writer.send, heartbeat)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        core.close()
        writer.close()
    return 0


class _Writer:
    """A thread that sends events, so that a slow parent never holds up a step."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def send(self, events: Sequence[Event]) -> None:
        """Queue events."""
        self._outbox.put(b"".join(map(encode, events)))

    def close(self) -> None:
        """Send what is queued, then stop."""
        self._outbox.put(None)
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while (data := self._outbox.get()) is not None:
            try:
                self._parent.sendall(data)
            except OSError:
                return  # the parent is gone; the reader sees it too and ends the process


def _read_config(parent: socket.socket) -> tuple[PairConfig, FrameDecoder[Command]]:
    """The first frame, and a decoder for those after it. The parent sends no command before it saw Ready."""
    decoder: FrameDecoder[PairConfig] = FrameDecoder(PairConfig)
    while data := parent.recv(_READ_BYTES):
        for config in decoder.feed(data):
            return config, FrameDecoder(Command)
    raise SystemExit("the parent went away before it sent a configuration")


def _read_commands(parent: socket.socket, decoder: FrameDecoder[Command], core: EngineCore) -> None:
    try:
        while data := parent.recv(_READ_BYTES):
            for command in decoder.feed(data):
                core.post(command)
    except Exception:
        traceback.print_exc()
    # Nobody is left to answer. A step may be long, so the process ends here and now; no file is open for writing.
    os._exit(0)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Not sys.exit: it would wait for the compile threads, and one of them may be stuck in a constraint.
    os._exit(status)
