"""Launches of the products with few rows: the sizes of Llama 3.1 8B, for one decode, a batch, and a large batch."""

from collections.abc import Iterator
from typing import Any

from kernels import linear
from kernels.specimens.specimen import Specimen

__all__ = ["specimens"]

SIZES = ((4096, 4096), (28672, 4096), (4096, 14336))
"""Outputs and inputs: of attention's output, of gate and up, of down."""


def specimens() -> Iterator[Specimen]:
    """Named after the weights, rows, outputs and inputs. Launches that compile to the same come once."""
    seen = list[tuple[str, dict[str, Any]]]()
    for kind in ("int8", "fp8", "int4"):
        for m, itemsize, dtype in ((16, 2, "bf16"), (64, 2, "bf16"), (16, 2, "fp16"), (16, 4, "fp32")):
            for n, k in SIZES:
                specimen = _product(kind, dtype, linear.tile_for(m, n, k, itemsize), f"{m} {n} {k}")
                launch = (f"{kind} {dtype}", dict(specimen.constants))
                if launch not in seen:
                    seen.append(launch)
                    yield specimen
    for has_scale, has_bias in ((True, False), (False, True)):
        yield Specimen(
            f"add_splits{' scale' * has_scale}{' bias' * has_bias}", linear.add_splits,
            {
                "sums_ptr": "*fp32", "scale_ptr": "*fp32", "bias_ptr": "*fp32", "out_ptr": "*bf16",
                "m": "i32", "n": "i32",
            },
            {"HAS_SCALE": has_scale, "HAS_BIAS": has_bias, "SPLITS": 4, "BLOCK": 512}, ("n",),
        )  # fmt: skip
    for kind in ("int8", "int4"):
        for n, k in ((896, 4864 + 128), (1001, 1001)):  # no multiple of a step, and of nothing
            tile = linear.tile_for(16, n, k, 2)
            yield _product(kind, "bf16", tile, f"16 {n} {k}", has_bias=True, is_even=False, is_aligned=k % 16 == 0)


def _product(
    kind: str,
    dtype: str,
    tile: linear.Tile,
    name: str,
    *,
    has_bias: bool = False,
    is_even: bool = True,
    is_aligned: bool = True,
) -> Specimen:
    scalars = dict.fromkeys(("m", "n", "k", "split_k"), "i32")
    types = {**scalars, "x_ptr": f"*{dtype}", "bias_ptr": "*fp32"}
    types["out_ptr"] = "*fp32" if tile.splits > 1 else f"*{dtype}"
    constants: dict[str, Any] = {
        "HAS_BIAS": has_bias, "IS_SPLIT": tile.splits > 1, "EVEN_K": is_even, "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k, "STAGES": tile.stages,
    }  # fmt: skip
    aligned = ["split_k", *(("n", "k") if is_aligned else ())]
    if kind == "int4":
        kernel = linear.multiply_4bit
        types |= {"packed_ptr": "*u8", "pairs_ptr": "*i32", "column_bytes": "i32"}
        constants["PACKED"] = dtype != "fp32"
        aligned.append("column_bytes")
    else:
        kernel = linear.multiply_8bit
        types |= {"weight_ptr": {"int8": "*i8", "fp8": "*fp8e4nv"}[kind], "scale_ptr": "*fp32"}
    return Specimen(
        f"{kind} {dtype} {name}", kernel, types, constants, tuple(aligned), warps=tile.warps,
        stack_allowance=16,  # where the assembler puts a number or two aside before the loop, to hold registers down
        min_capability=89 if kind == "fp8" else 80, wants_tensor_cores=dtype != "fp32",
    )  # fmt: skip
