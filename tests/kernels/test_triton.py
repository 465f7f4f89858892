"""The Triton kernels, each mode in a process of its own: Triton reads TRITON_INTERPRET when a kernel is decorated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]


def run(*command: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    return subprocess.run(
        [sys.executable, *command], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_every_kernel_equals_its_definition_in_the_interpreter() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/interpreted", interpret=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_every_kernel_compiles_ahead_of_time_without_spilling() -> None:
    done = run("-m", "kernels.aot", "--capability", "90", interpret=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 90 ") >= 12
    assert "SPILLS" not in done.stdout


def test_ahead_of_time_compilation_refuses_to_run_interpreted() -> None:
    done = run("-m", "kernels.aot", interpret=True)
    assert done.returncode == 2
    assert "unset it" in done.stderr
