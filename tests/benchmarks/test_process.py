"""A contestant's process: ours, for real, on a tiny checkpoint."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.checkpoints import Shape, build_checkpoint
from benchmarks.peers import process as process_module
from benchmarks.peers.process import ContestantFailed, Process, prepare
from benchmarks.peers.roster import ROSTER

OURS = ROSTER["pointsman-float32"]


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "HOME", tmp_path)


def is_stopped(pid: int) -> bool:
    """Within ten seconds: the signal takes its way."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


def test_it_answers_is_stopped_in_between_and_leaves_nothing_behind(tmp_path: Path) -> None:
    shape = Shape("llama", 1, 16, 2, 1, 16, 1000)
    process = Process(OURS, build_checkpoint(shape, tmp_path / "bf16", corpus_files=4))
    try:
        first = process.ask("decode", 1, shape.vocab_size)
        assert first["decode"] > 0
        assert is_stopped(process.pid)
        assert process.ask("no such task", 1, shape.vocab_size)["error"].startswith("KeyError")
        assert process.ask("json_1", 1, shape.vocab_size)["json_1"] > 0
        assert process.peak_bytes() > 2**20
    finally:
        process.end()
    assert not Path(f"/proc/{process.pid}").exists()


def test_it_dies_with_the_driver_although_it_is_stopped(tmp_path: Path) -> None:
    checkpoint = build_checkpoint(Shape("llama", 1, 16, 2, 1, 16, 1000), tmp_path / "bf16", corpus_files=4)
    driver = f"""
import os
from pathlib import Path
from benchmarks.peers import process
from benchmarks.peers.roster import ROSTER
process.HOME = Path({str(tmp_path)!r})
started = process.Process(ROSTER["pointsman-float32"], Path({str(checkpoint)!r}))
print(started.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 10
    while Path(f"/proc/{int(done.stdout)}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{int(done.stdout)}").exists()


def test_one_that_cannot_load_says_where_its_log_lies(tmp_path: Path) -> None:
    with pytest.raises(ContestantFailed, match=r"ended with code 1: see .*pointsman-float32\.log"):
        Process(OURS, tmp_path)


def test_a_missing_environment_is_answered_with_the_command_that_makes_it(tmp_path: Path) -> None:
    missing = replace(ROSTER["vllm-bf16-eager"], module="nobody")
    with pytest.raises(ContestantFailed, match="make bench-peers"):
        prepare(missing, tmp_path)
