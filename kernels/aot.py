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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPABILITIES = (80, 90, 100)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A kernel with the types and constants of a typical launch; pointers, and the scalars in `aligned`, are multiples
    of 16."""

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    warps: int = 4


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel takes: registers per thread, bytes of stack per thread, bytes of shared memory per
    block."""

    registers: int
    stack: int
    shared: int


def specimens() -> Iterator[Specimen]:
    """Every kernel: bfloat16 with the shapes of Llama 3 8B, Qwen2.5 0.5B and Gemma 2 9B; float32 where results must be
    exact."""
    from kernels import activation, attention, cache_write, norm, sampling, verify

    pointers = {
        "tables_ptr": "*i32", "starts_ptr": "*i32", "contexts_ptr": "*i32", "block_rows_ptr": "*i32",
        "block_queries_ptr": "*i32", "lse_ptr": "*fp32", "scale_log2": "fp32", "table_stride": "i32",
        "page_stride": "i32", "n_tokens": "i32",
    }  # fmt: skip
    heads = {"GROUP": 4, "KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_D": 128, "PAGE": 32, "BLOCK_N": 32}
    wide = {**heads, "GROUP": 2, "HEAD_DIM": 256, "BLOCK_D": 256, "BLOCK_Q": 16, "BLOCK_M": 32}
    few = {"BLOCK_Q": 4, "BLOCK_M": 16}
    many = {"BLOCK_Q": 16, "BLOCK_M": 64}
    for name, dtype, out, shape in (
        ("attend decode", "*bf16", "*bf16", {**heads, **few, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 0.0}),
        ("attend decode split", "*bf16", "*fp32", {**heads, **few, "WINDOW": 0, "SPLIT": 512, "SOFTCAP": 0.0}),
        ("attend chunk", "*bf16", "*bf16", {**heads, **many, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 0.0}),
        ("attend chunk window", "*bf16", "*bf16", {**heads, **many, "WINDOW": 4096, "SPLIT": 0, "SOFTCAP": 0.0}),
        ("attend chunk wide capped", "*bf16", "*bf16", {**wide, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 50.0}),
        (
            "attend decode fp32",
            "*fp32",
            "*fp32",
            {**heads, **few, "HEAD_DIM": 64, "BLOCK_D": 64, "WINDOW": 0, "SPLIT": 0, "SOFTCAP": 0.0},
        ),
    ):
        types = {**pointers, "q_ptr": dtype, "pages_ptr": dtype, "out_ptr": out}
        yield Specimen(name, attention.attend, types, shape, ("page_stride",))
    yield Specimen(
        "merge_splits", attention.merge_splits,
        {"partial_ptr": "*fp32", "lse_ptr": "*fp32", "out_ptr": "*bf16", "n_vectors": "i32", "n_splits": "i32"},
        {"HEAD_DIM": 128, "BLOCK_D": 128},
    )  # fmt: skip
    bf16 = dict.fromkeys(("qkv_ptr", "q_norm_ptr", "k_norm_ptr", "q_ptr", "pages_ptr"), "*bf16")
    for has_norm in (False, True):
        yield Specimen(
            f"write{' norm' * has_norm}", cache_write.write,
            {**bf16, "cos_ptr": "*fp32", "sin_ptr": "*fp32", "slots_ptr": "*i64", "page_stride": "i32", "eps": "fp32"},
            {"HEADS": 32, "KV_HEADS": 8, "HEAD_DIM": 128, "BLOCK_HALF": 64, "PAGE": 32, "HAS_NORM": has_norm},
            ("page_stride",),
        )  # fmt: skip
    for has_residual in (False, True):
        names = ("x_ptr", "residual_ptr", "weight_ptr", "out_ptr", "total_ptr")
        yield Specimen(
            f"norm_rows{' residual' * has_residual}", norm.norm_rows,
            {**dict.fromkeys(names, "*bf16"), "size": "i32", "eps": "fp32"},
            {"BLOCK": 4096, "HAS_RESIDUAL": has_residual}, ("size",),
        )  # fmt: skip
    for is_gelu in (False, True):
        yield Specimen(
            f"gate_rows{' gelu' * is_gelu}", activation.gate_rows,
            {"gate_up_ptr": "*bf16", "out_ptr": "*bf16", "size": "i32"},
            {"BLOCK": 1024, "IS_GELU": is_gelu}, ("size",),
        )  # fmt: skip
    for has_mask in (False, True):
        yield Specimen(
            f"best_of_block{' mask' * has_mask}", sampling.best_of_block,
            {
                "logits_ptr": "*fp32", "words_ptr": "*i32", "temperatures_ptr": "*fp32", "keep_from_ptr": "*fp32",
                "keys_ptr": "*i64", "scores_ptr": "*fp32", "tokens_ptr": "*i32", "vocab": "i32", "n_words": "i32",
            },
            {"HAS_MASK": has_mask, "BLOCK": 1024},
        )  # fmt: skip
    yield Specimen(
        "first_mismatch", verify.first_mismatch,
        dict.fromkeys(("drafted_ptr", "sampled_ptr", "starts_ptr", "accepted_ptr"), "*i64"), {"BLOCK": 64},
    )  # fmt: skip


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
