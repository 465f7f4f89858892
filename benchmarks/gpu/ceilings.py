"""Section `ceilings`: what the device does at most, against which everything else is measured."""

import torch

from benchmarks.gpu.bench import Bench, per_second, scaled

__all__ = ["ceilings"]


def ceilings(bench: Bench) -> None:
    """Bytes per second of copies and of a plain sum, and operations per second of a large product."""
    for name, spread in bench.measure_copies().items():
        bench.add(f"{name}, read + written", scaled(spread, 1e-9), "GB/s")
    source = bench.random(bench.pick(2**30, 2**16))
    read = per_second(source.nbytes, bench.stopwatch.seconds([source.sum]))
    bench.add("sum, read", scaled(read, 1e-9), "GB/s", of_copy=read.median / bench.copy_bytes_per_s)
    size = bench.pick(8192, 64)
    one, other = bench.random(size, size), bench.random(size, size)
    out = torch.empty_like(one)
    product = bench.stopwatch.seconds([lambda: torch.mm(one, other, out=out)])
    bench.add(f"product {size}^3, {bench.dtype}", per_second(2e-12 * size**3, product), "TFLOP/s")
