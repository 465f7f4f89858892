"""Products with weights as the checkpoint has them, float32 or bfloat16."""

import torch
from torch.nn.functional import linear as torch_linear

from engine.models.layers import Linear
from kernels.native.library import NativeLibrary
from kernels.native.structures import Form, ProjectionWeights

__all__ = ["GPU_TILE", "NativeLinear", "TiledLinear"]

FEW_ROWS = 128
"""Up to here the C kernel, which streams the weights once, is faster than oneDNN and MKL."""
CPU_TILE, GPU_TILE = 16, 64
"""Rows of a tile: few on a CPU, where each costs; on a GPU 64 cost as much as one."""


class NativeLinear:
    """x W^T + b in C for few rows, in torch for many.

    The C kernel gives a row the same bits in any batch, so is_invariant takes it for every number of rows.
    """

    def __init__(self, linear: Linear, library: NativeLibrary, *, is_invariant: bool) -> None:
        self.weight, self.bias = linear.weight.contiguous(), linear.bias
        self._library, self._bias = library, None if linear.bias is None else linear.bias.float()
        self._is_invariant = is_invariant

    @property
    def n_bytes(self) -> int:
        """Bytes of weight and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def describe(self) -> ProjectionWeights:
        """The weights, for the C kernels."""
        bias = 0 if self._bias is None else self._bias.data_ptr()
        return ProjectionWeights(self.weight.data_ptr(), 0, 0, bias, *self.weight.shape[::-1], Form.ELEMENTS)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out]."""
        if x.shape[0] <= FEW_ROWS or self._is_invariant:
            return self._library.linear(x.contiguous(), self.weight, self._bias)
        return torch_linear(x, self.weight, self.bias)


class TiledLinear:
    """x W^T + b in tiles of as many rows, the last one filled up: torch then takes the same path, to the same bits, for
    a row in any batch. Found true of MKL (float32) and oneDNN (bfloat16); the tests check it where they run. A GPU's
    library chooses its kernel by the sizes alone, and adds in a fixed order.
    """

    def __init__(self, linear: Linear, tile: int = CPU_TILE) -> None:
        """tile: rows of a product."""
        self._linear, self._tile = linear, tile

    @property
    def n_bytes(self) -> int:
        """Bytes of weight and bias."""
        return self._linear.n_bytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] to [n, out]."""
        n = x.shape[0]
        padded = torch.nn.functional.pad(x, (0, 0, 0, -n % self._tile))
        return torch.cat([self._linear(tile) for tile in torch.split(padded, self._tile)])[:n]
