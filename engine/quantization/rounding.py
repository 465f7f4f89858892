"""Rows of weights rounded to 8 bits with one scale each, on the device where they lie, a few rows at a time."""

from collections.abc import Iterator

import torch

from kernels import huge_pages

__all__ = ["empty", "round_rows", "slices"]

SLICE_BYTES = 64 * 2**20
"""Of a float32 copy. A copy of a whole weight would be the peak of loading, and of a prompt's products."""


def slices(n_out: int, n_in: int) -> Iterator[slice]:
    """Rows of a weight [n_out, n_in] in parts whose float32 copies fit into SLICE_BYTES."""
    step = max(1, SLICE_BYTES // (4 * n_in))
    for first in range(0, n_out, step):
        yield slice(first, min(first + step, n_out))


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Memory for weights: in huge pages on a CPU."""
    return huge_pages.empty(shape, dtype) if device.type == "cpu" else torch.empty(shape, dtype=dtype, device=device)


def round_rows(weight: torch.Tensor, dtype: torch.dtype, multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [out, in] to (elements of dtype int8 or float8_e4m3fn [out, in], scales float32 [out]): the largest
    magnitude of a row becomes the largest number of dtype. multiple: fill both axes of the elements up to one with
    zeros."""
    (n_out, n_in), device = weight.shape, weight.device
    rounded = empty((n_out + -n_out % multiple, n_in + -n_in % multiple), dtype, device)
    if multiple > 1:
        rounded.zero_()
    largest = 127.0 if dtype == torch.int8 else torch.finfo(dtype).max
    scale = torch.empty(n_out, device=device)
    for rows in slices(n_out, n_in):
        part = weight[rows].float()
        scale[rows] = part.abs().amax(1) / largest
        steps = part / scale[rows].clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        if dtype == torch.int8:
            steps.round_()
        else:  # a rounded scale can put a quotient above the largest number, beyond which float8_e4m3fn is NaN
            steps.clamp_(-largest, largest)
        rounded[rows, :n_in] = steps.to(dtype)
    return rounded, scale
