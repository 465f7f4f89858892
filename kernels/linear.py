"""Products with weights in 8 or 4 bits that stay so in memory: for few rows, reading them is all that a product costs.
Twins: reference_linear.linear_8bit and reference_linear.linear_4bit.

    x [m, k]  .  weight [n, k] transposed             a program owns BLOCK_N outputs of BLOCK_M rows, and walks along k

          k ->                 k ->
     m  ########          n  ########  <- BLOCK_N rows of weights: BLOCK_K inputs a stage, STAGES of them under way,
        ########             ########     widened to the dtype of x in registers, on their way to the tensor cores

Where the blocks of outputs are too few to fill a device, k is cut into splits; their sums in float32 are added by a
second kernel, in order. Nothing depends on which program ends first: equal inputs give equal bits. The additions of one
output follow from n, k, the dtypes and BLOCK_M (16, 32 or 64 by the number of rows), and from nothing else of a batch,
so that a row is the same bits beside any others in any place, as long as BLOCK_M is the same; `block_m` fixes it.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from kernels.reference_linear import CHUNK, GROUP

__all__ = ["Tile", "linear_4bit", "linear_8bit", "tile_for"]

PROGRAMS = 160
"""Where blocks of outputs are fewer, k is split: an H200 has 132 processors, an A100 108, and each holds two or more
programs."""


@dataclass(frozen=True, slots=True)
class Tile:
    """How a product is cut: see the picture above. splits: of k. warps: of 32 threads, in a program."""

    block_m: int
    block_n: int
    block_k: int
    splits: int
    warps: int
    stages: int


def tile_for(m: int, n: int, k: int, itemsize: int, block_m: int | None = None) -> Tile:
    """The cut for m rows of elements of itemsize bytes, and weights [n, k]; block_m: instead of one by m.

    A stage has 16 KB of weights in 8 bits and 8 KB in 4. A processor holds 2 to 4 programs with 2 or 3 stages under way
    each, some 64 KB; a device of 4.8 TB/s needs 30 to 40 (bandwidth times latency). 64 outputs a program, and not
    fewer, because each program fetches the whole of x, from the second-level cache and then for every warp. A program
    takes less than 100 KB, which all devices have.
    """
    if block_m is None:
        block_m = next((size for size in (16, 32) if m <= size), 64)
    # float32 in full precision has no tensor cores, and is for comparisons; rows of k % 16 elements begin anywhere, so
    # that they come element by element, through registers.
    if itemsize == 4 or k % 16:
        return Tile(block_m, 32, 64, 1, 4, 2)
    block_n, block_k, stages = (64, 128, 3) if block_m == 64 else (64, 256, 4)
    splits = 1
    while splits * -(-n // block_n) < PROGRAMS and 4 * splits * block_k <= k:  # two steps at least remain to a split
        splits *= 2
    return Tile(block_m, block_n, block_k, splits, 4, stages)


def _widen(shift: str, pattern: str, one: str, offset: str, kind: str) -> tl.constexpr:
    """Four bytes $2 and their scales $3, $4 to four numbers $0, $1: PTX for sm_80 and later."""
    lines = "".join(
        f"""
        prmt.b32 pair, $2, 0, {select};
        {shift}
        lop3.b32 pair, pair, 0x000F000F, {pattern}, 0xEA;
        fma.rn.{kind} pair, pair, one, offset;
        fma.rn.{kind} ${at}, pair, ${3 + at}, zero;"""
        for at, select in enumerate(("0x4140", "0x4342"))
    )
    constants = f"mov.b32 one, {one}; mov.b32 offset, {offset}; mov.b32 zero, 0x80008000;"
    return tl.constexpr(f"{{ .reg .b32 pair, one, offset, zero; {constants} {lines} }}")


_SHIFT = "shr.u32 pair, pair, 4;"
_BF16 = ("0x43004300", "0x3F803F80", "0xC308C308", "bf16x2")
_FP16 = ("0x64006400", "0x3C003C00", "0xE408E408", "f16x2")
LOW_BF16, HIGH_BF16 = _widen("", *_BF16), _widen(_SHIFT, *_BF16)
LOW_FP16, HIGH_FP16 = _widen("", *_FP16), _widen(_SHIFT, *_FP16)


@triton.jit(do_not_specialize=["m"])
def multiply_8bit(
    x_ptr, weight_ptr, scale_ptr, bias_ptr, out_ptr, m, n, k, split_k,
    HAS_BIAS: tl.constexpr, IS_SPLIT: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """x [m, k], weight int8 or float8 [n, k], scale and bias float32 [n], to out [m, n]; with IS_SPLIT to sums float32
    [splits, m, n], without scale and bias. split_k: inputs of a split, a multiple of BLOCK_K. Grid: (blocks of
    outputs, blocks of rows, splits)."""
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(2) * split_k
    inputs = first + tl.arange(0, BLOCK_K)
    # Columns beyond the last one read the last one again: no mask is needed, and nothing of them is stored.
    x_at = x_ptr + row.to(tl.int64)[:, None] * k + inputs[None, :]
    weight_at = weight_ptr + tl.minimum(column, n - 1).to(tl.int64)[:, None] * k + inputs[None, :]
    is_row = row[:, None] < m
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for at in tl.range(first, tl.minimum(first + split_k, k), BLOCK_K, num_stages=STAGES):
        if EVEN_K:
            x = tl.load(x_at, mask=is_row, other=0.0)
            weight = tl.load(weight_at)
        else:
            is_in = (at + tl.arange(0, BLOCK_K))[None, :] < k
            x = tl.load(x_at, mask=is_row & is_in, other=0.0)
            weight = tl.load(weight_at, mask=is_in, other=0.0)
        acc = tl.dot(x, tl.trans(widen_8bit(weight, x.dtype)), acc, input_precision="ieee")
        x_at += BLOCK_K
        weight_at += BLOCK_K
    is_column = column < n
    out_at = row.to(tl.int64)[:, None] * n + column[None, :]
    if IS_SPLIT:
        out_at += tl.program_id(2).to(tl.int64) * m * n
    else:
        acc *= tl.load(scale_ptr + column, mask=is_column, other=0.0)[None, :]
        if HAS_BIAS:
            acc += tl.load(bias_ptr + column, mask=is_column, other=0.0)[None, :]
    tl.store(out_ptr + out_at, acc.to(out_ptr.dtype.element_ty), mask=is_row & is_column[None, :])


@triton.jit
def widen_8bit(weight, dtype: tl.constexpr):
    """int8 or float8 to dtype, exactly."""
    if weight.dtype == tl.int8:
        return weight.to(tl.float32).to(dtype)  # one conversion once compiled; the interpreter needs both
    return weight.to(tl.float16).to(tl.float32).to(dtype)  # straight to bfloat16 would be a conversion with few units


@triton.jit(do_not_specialize=["m"])
def multiply_4bit(
    x_ptr, packed_ptr, pairs_ptr, bias_ptr, out_ptr, m, n, k, column_bytes, split_k,
    HAS_BIAS: tl.constexpr, IS_SPLIT: tl.constexpr, EVEN_K: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """As multiply_8bit, of packed uint8 [n, column_bytes], see reference_linear.unpack_4bit. pairs: the same memory
    from the first column's scales on, as int32: the two float16 scales of a chunk."""
    BYTES: tl.constexpr = BLOCK_K // 2
    CHUNKS: tl.constexpr = BLOCK_K // 64
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(2) * split_k
    byte = tl.arange(0, BYTES)
    chunk = tl.arange(0, CHUNKS)
    low_input = byte // 32 * 64 + byte % 32  # of the low half of each byte; that of the high half lies 32 behind
    column_at = tl.minimum(column, n - 1).to(tl.int64)[:, None]
    x_at = x_ptr + row.to(tl.int64)[:, None] * k + first + low_input[None, :]
    packed_at = packed_ptr + column_at * column_bytes + first // 2 + byte[None, :]
    pairs_at = pairs_ptr + column_at * (column_bytes // 4) + first // 64 + chunk[None, :]
    is_row = row[:, None] < m
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for at in tl.range(first, tl.minimum(first + split_k, k), BLOCK_K, num_stages=STAGES):
        if EVEN_K:
            x_low = tl.load(x_at, mask=is_row, other=0.0)
            x_high = tl.load(x_at + 32, mask=is_row, other=0.0)
            packed = tl.load(packed_at)
            pairs = tl.load(pairs_at)
        else:
            x_low = tl.load(x_at, mask=is_row & ((at + low_input)[None, :] < k), other=0.0)
            x_high = tl.load(x_at + 32, mask=is_row & ((at + 32 + low_input)[None, :] < k), other=0.0)
            packed = tl.load(packed_at, mask=((at + byte // 32 * 64)[None, :] < k), other=0)
            pairs = tl.load(pairs_at, mask=((at + chunk * 64)[None, :] < k), other=0)
        low, high = widen_4bit(packed, pairs, x_low.dtype, PACKED, BLOCK_N, CHUNKS)
        acc = tl.dot(x_low, tl.trans(low), acc, input_precision="ieee")
        acc = tl.dot(x_high, tl.trans(high), acc, input_precision="ieee")
        x_at += BLOCK_K
        packed_at += BYTES
        pairs_at += CHUNKS
    is_column = column < n
    out_at = row.to(tl.int64)[:, None] * n + column[None, :]
    if IS_SPLIT:
        out_at += tl.program_id(2).to(tl.int64) * m * n
    elif HAS_BIAS:
        acc += tl.load(bias_ptr + column, mask=is_column, other=0.0)[None, :]
    tl.store(out_ptr + out_at, acc.to(out_ptr.dtype.element_ty), mask=is_row & is_column[None, :])


@triton.jit
def widen_4bit(packed, pairs, dtype: tl.constexpr, PACKED: tl.constexpr, BLOCK_N: tl.constexpr, CHUNKS: tl.constexpr):
    """Bytes [BLOCK_N, 32 CHUNKS] and pairs of scales int32 [BLOCK_N, CHUNKS] to the weights of the low and of the high
    halves, [BLOCK_N, 32 CHUNKS] each: (level - 8) * scale, with scale and product rounded to dtype.

    PACKED: in instructions of the GPU for two numbers at once, to the same bits; one by one the arithmetic would take
    more time than the reading. A level q as the low bits of the dtype's pattern of 128 (or 1024) is the number 128 + q.
    """
    low_scale = (pairs & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(dtype)
    high_scale = (pairs >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(dtype)
    low_full = spread(low_scale, BLOCK_N, CHUNKS)
    high_full = spread(high_scale, BLOCK_N, CHUNKS)
    if PACKED:
        LOW: tl.constexpr = LOW_BF16 if dtype == tl.bfloat16 else LOW_FP16
        HIGH: tl.constexpr = HIGH_BF16 if dtype == tl.bfloat16 else HIGH_FP16
        low = tl.inline_asm_elementwise(LOW, "=&r,=&r,r,r,r", [packed, low_full], low_full.dtype, is_pure=True, pack=4)
        high = tl.inline_asm_elementwise(
            HIGH, "=&r,=&r,r,r,r", [packed, high_full], high_full.dtype, is_pure=True, pack=4
        )
    else:
        low = (((packed & 15).to(tl.float32) - 8.0) * low_full.to(tl.float32)).to(dtype)
        high = (((packed >> 4).to(tl.float32) - 8.0) * high_full.to(tl.float32)).to(dtype)
    return low, high


@triton.jit
def spread(scales, BLOCK_N: tl.constexpr, CHUNKS: tl.constexpr):
    """[BLOCK_N, CHUNKS] to [BLOCK_N, 32 CHUNKS], each 32 times: a reshape of registers."""
    return tl.reshape(tl.broadcast_to(scales[:, :, None], (BLOCK_N, CHUNKS, 32)), (BLOCK_N, 32 * CHUNKS))


@triton.jit(do_not_specialize=["m"])
def add_splits(
    sums_ptr, scale_ptr, bias_ptr, out_ptr, m, n,
    HAS_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sums float32 [SPLITS, m, n] to out [m, n], added in order, times scale, plus bias; grid: (m, blocks of n)."""
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * n + column
    is_in = column < n
    total = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(sums_ptr + split * m.to(tl.int64) * n + at, mask=is_in, other=0.0)
    if HAS_SCALE:
        total *= tl.load(scale_ptr + column, mask=is_in, other=0.0)
    if HAS_BIAS:
        total += tl.load(bias_ptr + column, mask=is_in, other=0.0)
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), mask=is_in)


def linear_8bit(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    block_m: int | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """x [m, k], weight int8 or float8_e4m3fn [n, k] contiguous, scale and bias float32 [n], to [m, n] in x.dtype.

    block_m: 16, 32 or 64, instead of one by m, so that a row's bits do not depend on m. tile: instead of tile_for. More
    than 64 rows are right, but read the weights once for each block. float8 needs a compute capability of 8.9.
    """
    (m, k), n = x.shape, weight.shape[0]
    tile = tile or tile_for(m, n, k, x.element_size(), block_m)
    out = x.new_empty(m, n)
    if m == 0:
        return out
    split_k, sums = _split(tile, m, n, k, out)
    multiply_8bit[(triton.cdiv(n, tile.block_n), triton.cdiv(m, tile.block_m), tile.splits)](
        x.contiguous(), weight, scale, scale if bias is None else bias, sums, m, n, k, split_k,
        HAS_BIAS=bias is not None, IS_SPLIT=tile.splits > 1, EVEN_K=k % tile.block_k == 0,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k, STAGES=tile.stages, num_warps=tile.warps,
    )  # fmt: skip
    return out if tile.splits == 1 else _add(sums, scale, bias, out)


def linear_4bit(
    x: torch.Tensor,
    packed: torch.Tensor,
    bias: torch.Tensor | None,
    k: int,
    *,
    block_m: int | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """x [m, k], packed uint8 [n, bytes] contiguous (see reference_linear.unpack_4bit), bias float32 [n], to [m, n] in
    x.dtype. block_m and tile: as in linear_8bit."""
    m, (n, column_bytes) = x.shape[0], packed.shape
    tile = tile or tile_for(m, n, k, x.element_size(), block_m)
    out = x.new_empty(m, n)
    if m == 0:
        return out
    split_k, sums = _split(tile, m, n, k, out)
    pairs = packed.view(torch.int32).view(-1)[-(-k // CHUNK) * GROUP // 4 :]
    multiply_4bit[(triton.cdiv(n, tile.block_n), triton.cdiv(m, tile.block_m), tile.splits)](
        x.contiguous(), packed, pairs, pairs if bias is None else bias, sums, m, n, k, column_bytes, split_k,
        HAS_BIAS=bias is not None, IS_SPLIT=tile.splits > 1, EVEN_K=k % tile.block_k == 0,
        PACKED=x.is_cuda and x.element_size() == 2,  # the interpreter knows no instructions of a GPU
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k, STAGES=tile.stages, num_warps=tile.warps,
    )  # fmt: skip
    return out if tile.splits == 1 else _add(sums, None, bias, out)


def _split(tile: Tile, m: int, n: int, k: int, out: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Inputs of a split, and where the sums go."""
    if tile.splits == 1:
        return triton.cdiv(k, tile.block_k) * tile.block_k, out
    split_k = triton.cdiv(k, tile.block_k * tile.splits) * tile.block_k
    return split_k, torch.empty(tile.splits, m, n, dtype=torch.float32, device=out.device)


def _add(sums: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
    (m, n), block = out.shape, 512
    add_splits[(m, triton.cdiv(n, block))](
        sums, sums if scale is None else scale, sums if bias is None else bias, out, m, n,
        HAS_SCALE=scale is not None, HAS_BIAS=bias is not None, SPLITS=len(sums), BLOCK=block,
    )  # fmt: skip
    return out
