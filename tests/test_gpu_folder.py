"""The tests of a GPU are tried without one, so that they work when there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[1]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-m", *command], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.full
def test_they_pass_at_tiny_size_in_the_interpreter() -> None:
    done = run("tests.gpu", POINTSMAN_GPU_TESTS_ON="interpreter")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_without_a_gpu_all_are_skipped_for_one_reason() -> None:
    done = run("pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", POINTSMAN_GPU_TESTS_ON="")
    assert done.returncode == 0, done.stdout + done.stderr
    reasons = {line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("SKIPPED")}
    assert len(reasons) == 1
    assert "no GPU" in reasons.pop()
