"""Section `small-kernels`: what lies between the products of a layer, with the widths of Llama 3 8B."""

from collections.abc import Callable

import torch

from benchmarks.gpu.bench import Bench, per_second, scaled

__all__ = ["small_kernels"]

ROWS = (8192, 1, 32, 256)
BLOCK_SIZE = 32


def small_kernels(bench: Bench) -> None:
    """Bytes read and written per second, and microseconds."""
    for rows in bench.pick(ROWS, (3,)):
        if not bench.has_time(f"{rows} rows"):
            return
        _measure(bench, rows)
        bench.free()


def _measure(bench: Bench, rows: int) -> None:
    kernels = bench.platform.kernels(bench.dtype, False)
    hidden, middle = bench.pick((4096, 14_336), (32, 48))
    n_heads, n_kv_heads, head_dim = bench.pick((32, 8, 128), (4, 2, 16))
    n_buffers = bench.n_buffers(rows * hidden * bench.dtype.itemsize)
    weight, x, residual = bench.random(hidden), bench.random(n_buffers, rows, hidden), bench.random(rows, hidden)
    gate_up = bench.random(n_buffers, rows, 2 * middle)
    qkv = bench.random(n_buffers, rows, n_heads + 2 * n_kv_heads, head_dim)
    n_pages = -(-rows // BLOCK_SIZE)
    pages = bench.random(n_buffers, n_pages, 2, n_kv_heads, BLOCK_SIZE, head_dim)
    order = torch.randperm(n_pages * BLOCK_SIZE, generator=torch.Generator().manual_seed(0))[:rows]
    slots = kernels.prepare_slots(order.to(bench.device), n_kv_heads, BLOCK_SIZE)
    positions, inv_freq = torch.arange(rows, device=bench.device), torch.rand(head_dim // 2, device=bench.device)
    cos, sin = kernels.rotary_tables(positions, inv_freq, 1.0)
    one = x[0].nbytes
    works: dict[str, tuple[Callable[[int], object], int]] = {
        "rms_norm": (lambda i: kernels.rms_norm(x[i], weight, 1e-5), 2 * one),
        "add_rms_norm": (lambda i: kernels.add_rms_norm(x[i], residual, weight, 1e-5), 4 * one),
        "silu_and_mul": (lambda i: kernels.silu_and_mul(gate_up[i]), gate_up[0].nbytes * 3 // 2),
        "rotary_tables": (lambda _: kernels.rotary_tables(positions, inv_freq, 1.0), cos.nbytes + sin.nbytes),
        "rope_and_cache": (
            lambda i: kernels.rope_and_cache(qkv[i], cos, sin, pages[i], slots, None, None, 1e-5),
            2 * qkv[0].nbytes + cos.nbytes + sin.nbytes,
        ),
    }
    for name, (work, n_bytes) in works.items():
        seconds = bench.seconds_of(work, n_buffers)
        bench.add(
            f"{name}, {rows} rows",
            scaled(per_second(n_bytes, seconds), 1e-9),
            "GB/s",
            of_copy=n_bytes / seconds.median / bench.copy_bytes_per_s,
            us=1e6 * seconds.median,
        )
