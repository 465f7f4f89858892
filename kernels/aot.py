"""Compiles every Triton kernel for GPUs that are not there: `python -m kernels.aot` catches what the interpreter
cannot.

Prints registers, stack and shared memory per kernel and architecture, and which tensor-core instructions appear. Exits
with 1 where a kernel does not compile, takes more local memory than its specimen allows (registers spill into it),
takes more shared memory than a block of that architecture has, or lacks the tensor-core instructions that it is made
for.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kernels.specimens import Specimen, specimens

__all__ = ["Resources", "compile_for", "main", "problems"]

CAPABILITIES = (80, 90, 100)
MAX_SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that a block may ask for (CUDA C programming guide, table of compute capabilities)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel takes: registers per thread, bytes of stack per thread (spilled registers lie there),
    bytes of shared memory per block. tensor_cores: kinds of matrix instructions in its PTX."""

    registers: int
    stack: int
    shared: int
    tensor_cores: tuple[str, ...]


def compile_for(specimen: Specimen, capability: int) -> Resources:
    """Compile for sm_`capability` and read the cubin's resources. Raises whatever the compiler raises."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = specimen.kernel.arg_names
    aligned = [name for name in names if specimen.types.get(name, "").startswith("*") or name in specimen.aligned]
    source = ASTSource(
        fn=specimen.kernel,
        signature={name: "constexpr" if name in specimen.constants else specimen.types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in specimen.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options: dict[str, Any] = {"num_warps": specimen.warps, "enable_fp_fusion": True}  # as a launch has it
    if specimen.stages is not None:
        options["num_stages"] = specimen.stages
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        tool = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.findall(rf"{name}:(\d+)", usage)[-1]) for name in ("REG", "STACK"))
    kinds = re.findall(r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)\b", compiled.asm["ptx"])
    return Resources(registers, stack, compiled.metadata.shared, tuple(sorted(set(kinds))))


def problems(specimen: Specimen, found: Resources, capability: int) -> list[str]:
    """What is wrong with a kernel that compiled."""
    wrong = []
    if found.stack > specimen.stack_allowance:
        wrong.append(f"SPILLS: {found.stack} bytes of stack, {specimen.stack_allowance} are allowed")
    if found.shared > MAX_SHARED.get(capability, MAX_SHARED[90]):
        wrong.append(f"TOO LARGE: {found.shared} bytes of shared memory, a block has {MAX_SHARED[capability]}")
    if specimen.wants_tensor_cores and not found.tensor_cores:
        wrong.append("NO TENSOR CORES")
    return wrong


@dataclass(frozen=True, slots=True)
class _Outcome:
    name: str
    capability: int
    found: Resources | None
    problems: tuple[str, ...]

    def __str__(self) -> str:
        start = f"{self.name:40} {self.capability:4}"
        if self.found is None:
            return f"{start} {'; '.join(self.problems)}"
        found, cores = self.found, ", ".join(kind.split(".")[0] for kind in self.found.tensor_cores) or "-"
        line = f"{start} {found.registers:9} {found.stack:6} {found.shared:7} {cores:12} {'; '.join(self.problems)}"
        return line.rstrip()


def _try(job: tuple[int, int]) -> _Outcome:
    """For one architecture one kernel, by its number among the specimens."""
    capability, number = job
    specimen = list(specimens())[number]
    try:
        found = compile_for(specimen, capability)
    except Exception as error:  # any compiler failure is a finding, and the others are wanted too
        return _Outcome(specimen.name, capability, None, (f"{type(error).__name__}: {error}",))
    return _Outcome(specimen.name, capability, found, tuple(problems(specimen, found, capability)))


def _compile_all(capabilities: Sequence[int], names: Sequence[str], n_jobs: int) -> Iterator[_Outcome]:
    wanted = sorted(
        (capability, number)
        for number, specimen in enumerate(specimens())
        if not names or specimen.name in names
        for capability in specimen.targets(capabilities)
    )
    if n_jobs == 1:
        yield from map(_try, wanted)
    else:
        with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as processes:
            yield from processes.map(_try, wanted)


def main() -> int:
    """Compile all, print a table; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--capability", type=int, action="append", help=f"as in sm_90; may be repeated (default: {CAPABILITIES})"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="kernels by the names that are printed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once (default: one a core)")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("TRITON_INTERPRET is 1, so that nothing would be compiled: unset it", file=sys.stderr)
        return 2
    print(f"{'kernel':40} {'sm':>4} {'registers':>9} {'stack':>6} {'shared':>7} tensor cores")
    n_compiled = n_wrong = 0
    for outcome in _compile_all(arguments.capability or CAPABILITIES, arguments.only, max(1, arguments.jobs)):
        print(outcome, flush=True)
        n_compiled += 1
        n_wrong += bool(outcome.problems)
    if not n_compiled:
        print(f"no kernel is called {' or '.join(arguments.only)}", file=sys.stderr)
        return 2
    if n_wrong:
        print(f"{n_wrong} of these are not as they should be", file=sys.stderr)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
