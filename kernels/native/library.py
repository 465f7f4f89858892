"""The C kernels as functions of tensors. They check nothing: dtypes and shapes are fixed when a model is loaded."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kernels.native.structures import AttentionShape, DecoderLayerWeights, StepGroup, StepRow

__all__ = ["MAX_HEAD_DIM", "NativeLibrary"]

MAX_HEAD_DIM = 1024
"""As in source/layer.c: a head that is normed lies on the stack."""

_POINTER, _INT, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_float
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "linear": ([_POINTER] * 4 + [_INT] * 4, None),
    "linear_w8a8": ([_POINTER] * 6 + [_INT] * 4, _INT),
    "linear_int4": ([_POINTER] * 4 + [_INT] * 4, _INT),
    "pack_int4": ([_POINTER] * 2 + [_INT] * 3, None),
    "quantize_rows": ([_POINTER] * 3 + [_INT] * 3, None),
    "scale_sums": ([_POINTER] * 5 + [_INT] * 3, None),
    "paged_attention": ([_POINTER, _SIZE, _POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT], _INT),
    "rms_norm": ([_POINTER] * 3 + [_INT] * 2 + [_FLOAT, _INT], None),
    "add_rms_norm": ([_POINTER] * 5 + [_INT] * 2 + [_FLOAT, _INT], None),
    "silu_and_mul": ([_POINTER] * 2 + [_INT] * 3, None),
    "gelu_tanh_and_mul": ([_POINTER] * 2 + [_INT] * 3, None),
    "rope_and_cache": ([_POINTER] * 8 + [_INT] * 5 + [_FLOAT, _INT], None),
    "decoder_layers": ([_POINTER, _INT] + [_POINTER] * 5 + [_INT] * 2 + [_FLOAT, _INT], _INT),
}
_OF_FLOAT32: dict[str, tuple[list[Any], Any]] = {"mask_logits": ([_POINTER] * 4 + [_INT] * 3, None)}
"""Functions that exist once, whatever the element type."""


class NativeLibrary:
    """The functions of one element type, float32 or bfloat16: all tensors are of that type, contiguous and on the CPU,
    unless said otherwise.

    They release the GIL, and use as many threads as torch does, out of the same pool.
    """

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        """Raises OSError where the file is no library for this machine, ValueError for another dtype."""
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"dtype is {dtype}: the C kernels know float32 and bfloat16")
        self.dtype = dtype
        suffix = "f32" if dtype == torch.float32 else "bf16"
        library = ctypes.CDLL(str(path))  # finds its OpenMP in torch, which is loaded already
        self._functions: dict[str, Callable[..., Any]] = {}
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(library, f"{name}_{suffix}")
            function.argtypes, function.restype = arguments, result
            self._functions[name] = function
        for name, (arguments, result) in _OF_FLOAT32.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, result
            self._functions[name] = function

    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x W^T + b: x [n, in], weight [out, in], bias float32 [out], to [n, out]."""
        (n, n_in), n_out = x.shape, weight.shape[0]
        out = x.new_empty(n, n_out)
        self._functions["linear"](
            x.data_ptr(), weight.data_ptr(), _address(bias), out.data_ptr(), n, n_out, n_in, torch.get_num_threads()
        )
        return out

    def linear_w8a8(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        weight_sum: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """x [n, in], weight int8 [out, in], weight_scale and bias float32 [out], weight_sum int32 [out] (the sums of
        the rows of weight), to [n, out]. Raises MemoryError."""
        (n, n_in), n_out = x.shape, weight.shape[0]
        out = x.new_empty(n, n_out)
        failed = self._functions["linear_w8a8"](
            x.data_ptr(),
            weight.data_ptr(),
            weight_scale.data_ptr(),
            weight_sum.data_ptr(),
            _address(bias),
            out.data_ptr(),
            n,
            n_out,
            n_in,
            torch.get_num_threads(),
        )
        _check(failed)
        return out

    def linear_int4(self, x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x [n, in], packed uint8 [out, bytes] (engine.quantization.int4), bias float32 [out], to [n, out]. Raises
        MemoryError."""
        (n, n_in), n_out = x.shape, packed.shape[0]
        out = x.new_empty(n, n_out)
        failed = self._functions["linear_int4"](
            x.data_ptr(), packed.data_ptr(), _address(bias), out.data_ptr(), n, n_out, n_in, torch.get_num_threads()
        )
        _check(failed)
        return out

    def pack_int4(self, weight: torch.Tensor, packed: torch.Tensor) -> None:
        """weight [out, in] into packed uint8 [out, bytes], which must hold zeros."""
        self._functions["pack_int4"](weight.data_ptr(), packed.data_ptr(), *weight.shape, torch.get_num_threads())

    def quantize_rows(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One scale per row: x [n, in] to int8 [n, in] and float32 [n]."""
        n, n_in = x.shape
        quantized, scale = torch.empty(n, n_in, dtype=torch.int8), torch.empty(n)
        self._functions["quantize_rows"](
            x.data_ptr(), quantized.data_ptr(), scale.data_ptr(), n, n_in, torch.get_num_threads()
        )
        return quantized, scale

    def scale_sums(
        self, sums: torch.Tensor, x_scale: torch.Tensor, weight_scale: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """sums int32 [n, out] times x_scale [n] and weight_scale [out], plus bias [out], all float32, to [n, out]."""
        n, n_out = sums.shape
        out = torch.empty(n, n_out, dtype=self.dtype)
        self._functions["scale_sums"](
            sums.data_ptr(),
            x_scale.data_ptr(),
            weight_scale.data_ptr(),
            _address(bias),
            out.data_ptr(),
            n,
            n_out,
            torch.get_num_threads(),
        )
        return out

    def paged_attention(
        self, q: torch.Tensor, pages: torch.Tensor, rows: "ctypes.Array[StepRow]", shape: AttentionShape
    ) -> torch.Tensor:
        """q [n, heads, d] to [n, heads, d]; pages as in kernels.reference. Raises MemoryError."""
        out = torch.empty(q.shape, dtype=self.dtype)
        failed = self._functions["paged_attention"](
            q.data_ptr(),
            q.stride(0),
            pages.data_ptr(),
            rows,
            len(rows),
            ctypes.byref(shape),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        _check(failed)
        return out

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """x [n, d], weight [d], to [n, d]."""
        out = torch.empty_like(x)
        self._functions["rms_norm"](
            x.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps, torch.get_num_threads()
        )
        return out

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(norm(x + residual), x + residual); all [n, d]."""
        out, total = torch.empty_like(x), torch.empty_like(x)
        self._functions["add_rms_norm"](
            x.data_ptr(),
            residual.data_ptr(),
            weight.data_ptr(),
            out.data_ptr(),
            total.data_ptr(),
            *x.shape,
            eps,
            torch.get_num_threads(),
        )
        return out, total

    def silu_and_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[n, 2 d] to [n, d]."""
        return self._gate("silu_and_mul", gate_up)

    def gelu_tanh_and_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[n, 2 d] to [n, d]."""
        return self._gate("gelu_tanh_and_mul", gate_up)

    def _gate(self, name: str, gate_up: torch.Tensor) -> torch.Tensor:
        n, double = gate_up.shape
        out = gate_up.new_empty(n, double // 2)
        self._functions[name](gate_up.data_ptr(), out.data_ptr(), n, double // 2, torch.get_num_threads())
        return out

    def rope_and_cache(
        self,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        pages: torch.Tensor,
        slots: torch.Tensor,
        q_norm: torch.Tensor | None,
        k_norm: torch.Tensor | None,
        eps: float,
    ) -> torch.Tensor:
        """See reference.rope_and_cache. Raises ValueError for a head that the kernel has no room for."""
        n, n_rows, head_dim = qkv.shape
        if head_dim > MAX_HEAD_DIM:
            raise ValueError(f"head_dim is {head_dim}: the C kernels have room for {MAX_HEAD_DIM}")
        n_kv_heads, block_size = pages.shape[2], pages.shape[3]
        n_heads = n_rows - 2 * n_kv_heads
        q = qkv.new_empty(n, n_heads, head_dim)
        self._functions["rope_and_cache"](
            qkv.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            pages.data_ptr(),
            slots.data_ptr(),
            _address(q_norm),
            _address(k_norm),
            q.data_ptr(),
            n,
            n_heads,
            n_kv_heads,
            head_dim,
            block_size,
            eps,
            torch.get_num_threads(),
        )
        return q

    def mask_logits(self, logits: torch.Tensor, masks: torch.Tensor, mask_of: torch.Tensor) -> torch.Tensor:
        """Rule out in place what masks do not allow; see SamplingBatch. logits float32 [n, vocab], to int32 [n]: how
        many tokens each row may take."""
        n, vocab = logits.shape
        n_allowed = torch.empty(n, dtype=torch.int32)
        self._functions["mask_logits"](
            logits.data_ptr(),
            masks.data_ptr(),
            mask_of.data_ptr(),
            n_allowed.data_ptr(),
            n,
            vocab,
            masks.shape[1],
        )
        return n_allowed

    def decoder_layers(
        self,
        residual: torch.Tensor,
        layers: "ctypes.Array[DecoderLayerWeights]",
        groups: "ctypes.Array[StepGroup]",
        rotations: Sequence[tuple[torch.Tensor, torch.Tensor]],
        states: Mapping[int, torch.Tensor],
        eps: float,
    ) -> None:
        """All layers of a decoder: residual [n, hidden] holds the embeddings and gets the result. rotations: cos and
        sin float32 [n, head_dim] of each; states: by layer the tensor [n, hidden] that its output is copied to. Raises
        MemoryError.
        """
        tables = ctypes.c_void_p * len(rotations)
        copies = (ctypes.c_void_p * len(layers))()
        for layer, state in states.items():
            copies[layer] = state.data_ptr()
        failed = self._functions["decoder_layers"](
            layers,
            len(layers),
            groups,
            tables(*(cos.data_ptr() for cos, _ in rotations)),
            tables(*(sin.data_ptr() for _, sin in rotations)),
            residual.data_ptr(),
            copies,
            *residual.shape,
            eps,
            torch.get_num_threads(),
        )
        _check(failed)


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("a CPU kernel found no memory for its scratch space: use a smaller token_budget")
