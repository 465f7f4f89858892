"""Compiles every Triton kernel for GPUs that are not there: `python -m kernels.aot` catches what the interpreter
cannot.

Prints registers, stack and shared memory per kernel and architecture; exits with 1 where a kernel does not compile, or
spills registers to memory.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kernels.specimens import Specimen, specimens

CAPABILITIES = (80, 90, 100)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel takes: registers per thread, bytes of stack per thread, bytes of shared memory per
    block."""

    registers: int
    stack: int
    shared: int


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
    options = {"num_warps": specimen.warps, "enable_fp_fusion": True}  # the default of a launch, up to Triton 3.9
    if specimen.stages is not None:
        options["num_stages"] = specimen.stages
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        tool = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.findall(rf"{name}:(\d+)", usage)[-1]) for name in ("REG", "STACK"))
    return Resources(registers, stack, compiled.metadata.shared)


def main() -> int:
    """Compile all, print a table; 1 where something failed or spilled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--capability", type=int, action="append", help=f"as in sm_90; may be repeated (default: {CAPABILITIES})"
    )
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("TRITON_INTERPRET is 1, so that nothing would be compiled: unset it", file=sys.stderr)
        return 2
    n_failed = 0
    print(f"{'kernel':24} {'sm':>4} {'registers':>9} {'stack':>6} {'shared':>7}")
    for capability in arguments.capability or CAPABILITIES:
        for specimen in specimens():
            try:
                found = compile_for(specimen, capability)
            except Exception as error:  # any compiler failure is a finding, and the others are wanted too
                print(f"{specimen.name:24} {capability:4} {type(error).__name__}: {error}")
                n_failed += 1
                continue
            spills = "  SPILLS" if found.stack else ""
            n_failed += bool(spills)
            print(f"{specimen.name:24} {capability:4} {found.registers:9} {found.stack:6} {found.shared:7}{spills}")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
