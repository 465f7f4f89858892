"""The Triton kernels, each mode in a process of its own: Triton reads TRITON_INTERPRET when a kernel is decorated."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernels.aot import Resources, problems
from kernels.specimens import Specimen, specimens

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


def test_kernels_compile_ahead_of_time_without_spilling() -> None:
    """A few of them; `make lint` compiles all, for three architectures."""
    names = ["attend decode", "attend chunk", "merge", "int8 bf16 16 4096 4096", "write norm"]
    done = run("-m", "kernels.aot", "--capability", "90", "--only", *names, interpret=False)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.split(" 90 ")[0].strip() for line in done.stdout.splitlines()[1:]]
    assert set(table) == set(names)
    assert "wgmma" in next(line for line in done.stdout.splitlines() if line.startswith("attend chunk"))


def test_ahead_of_time_compilation_finds_what_is_wrong_with_a_kernel() -> None:
    specimen = Specimen("any", None, {}, wants_tensor_cores=True, stack_allowance=16)
    good = Resources(registers=200, stack=16, shared=160_000, tensor_cores=("mma.sync",))
    assert problems(specimen, good, 80) == []
    assert "SPILLS: 24" in problems(specimen, replace(good, stack=24), 80)[0]
    assert "TOO LARGE" in problems(specimen, replace(good, shared=170_000), 80)[0]
    assert problems(specimen, replace(good, shared=170_000), 90) == []
    assert problems(specimen, replace(good, tensor_cores=()), 90) == ["NO TENSOR CORES"]


def test_every_kernel_that_is_launched_is_among_the_specimens() -> None:
    launches = re.compile(r"^ +(\w+)\[\(.+\)\]\(", re.MULTILINE)
    launched = {name for path in (ROOT / "kernels").glob("*.py") for name in launches.findall(path.read_text())}
    assert {"attend", "merge", "write", "best_of_block"} <= launched
    assert launched <= {specimen.kernel.__name__ for specimen in specimens()}


def test_ahead_of_time_compilation_refuses_to_run_interpreted() -> None:
    done = run("-m", "kernels.aot", interpret=True)
    assert done.returncode == 2
    assert "unset it" in done.stderr
