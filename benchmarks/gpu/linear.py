"""Section `linear`: products with weights in 8 and in 4 bits, of the shapes of Llama 3 8B."""

from collections.abc import Callable

import torch

from benchmarks.gpu.bench import Bench, per_second, scaled
from kernels.linear import linear_4bit, linear_8bit
from kernels.reference_linear import CHUNK

__all__ = ["linear"]

PRODUCTS = {"qkv": (6144, 4096), "output": (4096, 4096), "gate_up": (28_672, 4096), "down": (4096, 14_336)}
"""Outputs and inputs."""
ROWS = (1, 16, 8, 32, 64)
FP8_CAPABILITY = (8, 9)
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""x [n, in] and weights to [n, out]."""


def linear(bench: Bench) -> None:
    """Bytes of weights per second; beside it the share of the copy bandwidth, and how long torch's product with 16-bit
    weights takes, over ours."""
    for name, shape in bench.pick(PRODUCTS, {"toy": (48, 96)}).items():
        if not bench.has_time(name, 10.0 * bench.is_cuda):
            return
        _product(bench, name, *shape)
        bench.free()


def _product(bench: Bench, name: str, n_out: int, n_in: int) -> None:
    n_buffers = bench.n_buffers(n_out * n_in // 2)
    plain = bench.random(n_buffers, n_out, n_in) * n_in**-0.5
    levels = torch.randint(-127, 128, (n_buffers, n_out, n_in), dtype=torch.int8, device=bench.device)
    scale = torch.rand(n_out, device=bench.device) / 127
    weights = {"plain": plain, "8-bit": levels, "4-bit": _packed(bench, n_buffers, n_out, n_in)}
    products: dict[str, Product] = {
        "plain": torch.nn.functional.linear,
        "8-bit": lambda x, weight: linear_8bit(x, weight, scale, None),
        "4-bit": lambda x, weight: linear_4bit(x, weight, None, n_in),
    }
    if bench.is_cuda and torch.cuda.get_device_capability(bench.device) >= FP8_CAPABILITY:
        weights["fp8"], products["fp8"] = plain.to(torch.float8_e4m3fn), products["8-bit"]
    for rows in bench.pick(ROWS, (1, 3)):
        x, plain_s = bench.random(rows, n_in), 0.0
        for kind, product in products.items():
            of_kind = weights[kind]
            seconds = bench.seconds_of(_multiply(product, x, of_kind), n_buffers)
            plain_s = plain_s or seconds.median
            n_bytes = of_kind[0].nbytes
            bench.add(
                f"{kind} {name}, {rows} rows",
                scaled(per_second(n_bytes, seconds), 1e-9),
                "GB/s",
                of_copy=n_bytes / seconds.median / bench.copy_bytes_per_s,
                over_plain=plain_s / seconds.median,
                us=1e6 * seconds.median,
            )


def _multiply(product: Product, x: torch.Tensor, weights: torch.Tensor) -> Callable[[int], torch.Tensor]:
    return lambda i: product(x, weights[i])


def _packed(bench: Bench, n_buffers: int, n_out: int, n_in: int) -> torch.Tensor:
    """Random 4-bit weights in the format of reference_linear.unpack_4bit: uint8 [n_buffers, n_out, bytes]."""
    n_chunks = -(-n_in // CHUNK)
    n_scales = -(-2 * n_chunks // 16) * 16
    levels = torch.randint(0, 256, (n_buffers, n_out, n_chunks * CHUNK // 2), dtype=torch.uint8, device=bench.device)
    scales = torch.rand(n_buffers, n_out, n_scales, device=bench.device).to(torch.float16) / 100
    return torch.cat((levels, scales.view(torch.uint8)), -1).contiguous()
