"""A contestant's process, seen from the driver: started, asked, and stopped while others are measured."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.roster import HOME, INSTALL, Entry

LOAD_TIMEOUT_S = 600.0
TASK_TIMEOUT_S = 300.0
END_TIMEOUT_S = 10.0


class ContestantFailed(Exception):
    """The process could not be started, ended, or did not answer in time. The message says where its log lies."""


class Process:
    """One contestant with its model loaded. Between tasks all of its threads are stopped (SIGSTOP), so that nothing of
    it spins or wakes while another one is measured."""

    def __init__(self, entry: Entry, checkpoint: Path) -> None:
        """Start and load. Raises ContestantFailed."""
        self.entry = entry
        self._log = HOME / "logs" / f"{entry.name}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = command_of(entry, checkpoint)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=entry.environment,
                start_new_session=True,
            )
        if self._process.stdin is None or self._process.stdout is None:
            raise ContestantFailed(f"{entry.name} was started without pipes")
        self._input, self._output = self._process.stdin, self._process.stdout
        self._buffer = b""
        self.load_s: float = self._answer(LOAD_TIMEOUT_S)["load_s"]
        self._signal(signal.SIGSTOP)

    @property
    def pid(self) -> int:
        """Of the process that was started; it leads its session."""
        return self._process.pid

    def ask(self, task: str, seed: int, vocab_size: int) -> dict[str, Any]:
        """The answer to one task (see tasks.py). Raises ContestantFailed."""
        self._signal(signal.SIGCONT)
        request = {"task": task, "seed": seed, "vocab_size": vocab_size}
        self._input.write(json.dumps(request).encode() + b"\n")
        answer = self._answer(TASK_TIMEOUT_S)
        self._signal(signal.SIGSTOP)
        return answer

    def peak_bytes(self) -> int:
        """Most memory that was ever resident, mapped files included (VmHWM), summed over the session's processes."""
        return sum(_peak_bytes(pid) for pid in _session(self.pid))

    def end(self) -> None:
        """Kill the process and what it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._input.close()
        self._output.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """The next line of output."""
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.end()
                    raise ContestantFailed(f"no answer within {timeout_s:.0f} s: see {self._log}")
                chunk = os.read(self._output.fileno(), 65_536)
                if not chunk:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(END_TIMEOUT_S)
                    self.end()
                    raise ContestantFailed(f"ended with code {self._process.returncode}: see {self._log}")
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        """To the whole process group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError as error:
            if number is not signal.SIGKILL:
                raise ContestantFailed(f"{self.entry.name} is gone: see {self._log}") from error


def command_of(entry: Entry, checkpoint: Path) -> list[str]:
    """The command line of a contestant's process."""
    return [str(entry.python), "-m", f"benchmarks.peers.{entry.module}", str(checkpoint), entry.variant]


def prepare(entry: Entry, checkpoint: Path) -> None:
    """Convert the checkpoint, in a process of its own. Raises ContestantFailed."""
    if not entry.python.exists():
        raise ContestantFailed(f"its environment is missing: {INSTALL}")
    done = subprocess.run(
        [*command_of(entry, checkpoint), "--prepare"],
        env=entry.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ContestantFailed(f"could not convert the checkpoint: {(done.stderr.strip() or '?').splitlines()[-1]}")


def _session(leader: int) -> list[int]:
    """Processes of the session that `leader` began."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(after_name[3]) == leader:
            found.append(int(folder.name))
    return found


def _peak_bytes(pid: int) -> int:
    """VmHWM of one process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
