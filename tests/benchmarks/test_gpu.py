"""The benchmark of a GPU, at toy size: every section gives finite figures, is written as it ends, and is not measured
twice."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
SECTIONS = {
    "ceilings", "decode-llama-8b-bf16", "attention-decode", "attention-prefill", "sampling", "decode-qwen3-0.6b-bf16",
    "decode-qwen3-1.7b-bf16", "decode-llama-8b-int8", "decode-qwen3-0.6b-int8", "decode-qwen3-1.7b-int8", "linear",
    "transformers-llama-8b", "transformers-qwen3-0.6b", "transformers-qwen3-1.7b", "small-kernels",
    "decode-llama-8b-int4", "decode-llama-8b-w8a8", "verify-llama-8b-bf16",
}  # fmt: skip
MISSING = (
    "litestar", "xgrammar", "outlines_core", "llguidance", "jsonschema_rs", "sqlalchemy", "openai", "pydantic",
    "opentelemetry", "uvicorn",
)  # fmt: skip
BLOCKED = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process that sees no GPU."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **variables}
    environment.pop("TRITON_INTERPRET", None)
    return subprocess.run(
        [sys.executable, *command], check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


def toy(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "benchmarks.gpu", "--toy", "--out", str(out), *more)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The results of all sections, and the table."""
    out = tmp_path_factory.mktemp("gpu") / "toy.json"
    done = toy(out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def test_every_section_gives_finite_figures(measured: tuple[Path, str]) -> None:
    sections = json.loads(measured[0].read_text())["sections"]
    assert set(sections) == SECTIONS
    for name, section in sections.items():
        assert section["failure"] is None
        assert section["is_toy"]
        assert section["figures"], name
        assert section["copy_bytes_per_s"] > 0
        assert {"device", "driver", "torch", "triton", "transformers"} <= set(section["where"])
        assert all(math.isfinite(number) for number in numbers(section["figures"]))
        assert all(figure["value"]["median"] > 0 for figure in section["figures"])


def test_the_table_names_every_section_its_targets_and_that_they_are_toys(measured: tuple[Path, str]) -> None:
    table = measured[1]
    assert all(f"\n{name}  (toy" in table for name in SECTIONS)
    assert "tokens/s over transformers'" in table
    assert "masked over unmasked, 8B at batch 32" in table
    assert "the figures mean nothing" in table


def test_what_is_there_already_is_not_measured_again(measured: tuple[Path, str]) -> None:
    out, table = measured
    before = out.read_bytes()
    done = toy(out)
    assert done.returncode == 0
    assert done.stderr.count("already measured") == len(SECTIONS)
    assert (out.read_bytes(), done.stdout) == (before, table)
    again = toy(out, "--only", "ceilings", "--again")
    assert again.returncode == 0
    assert out.read_bytes() != before
    other = toy(out, "--only", "ceilings", "--commit", "another")
    assert "already measured" not in other.stderr


def test_a_section_that_would_not_fit_the_budget_is_not_begun(tmp_path: Path) -> None:
    done = toy(tmp_path / "toy.json", "--budget-s", "30", "--only", "decode-llama-8b-bf16", "ceilings")
    assert done.returncode == 0
    assert set(json.loads((tmp_path / "toy.json").read_text())["sections"]) == {"ceilings"}
    assert "decode-llama-8b-bf16: takes about" in done.stderr


def test_without_a_gpu_figures_are_refused(tmp_path: Path) -> None:
    done = run("-m", "benchmarks.gpu", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert "no GPU" in done.stderr
    assert not list(tmp_path.iterdir())


def test_toys_are_never_written_over_the_results() -> None:
    assert run("-m", "benchmarks.gpu", "--toy").returncode == 2
    assert run("-m", "benchmarks.gpu", "--toy", "--out", "x.json", "--only", "nothing").returncode == 2
    assert run("-m", "benchmarks.gpu", "--toy", "--out", "missing/x.json").returncode == 2


def test_it_needs_no_library_but_torch_triton_transformers_numpy_and_msgspec() -> None:
    script = BLOCKED + "import benchmarks.gpu.__main__, benchmarks.gpu.sections, engine.pair\nprint('imported')\n"
    done = run("-c", script)
    assert done.stdout == "imported\n", done.stderr


def test_the_tests_of_a_gpu_need_neither() -> None:
    script = BLOCKED + "import pytest\nraise SystemExit(pytest.main(['-q', '--collect-only', 'tests/gpu']))\n"
    done = run("-c", script)
    assert done.returncode == 0, done.stdout + done.stderr
