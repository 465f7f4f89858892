"""Triton's CPU interpreter, repaired: it multiplies the raw 16-bit patterns of bfloat16 in tl.dot, and cuts float32 off
where a GPU rounds it to bfloat16 (seen in 3.6 to 3.9). In 3.6 it also makes an int of an array of one dimension, which
NumPy 2.4 refuses."""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_original_dot = interpreter.InterpreterBuilder.create_dot
_original_cast = interpreter.InterpreterBuilder.cast_impl
_original_patch = interpreter._patch_lang_tensor


def _create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
    def widen(x: Any) -> Any:
        if x.dtype.scalar == tl.bfloat16:
            return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
        return x

    return _original_dot(self, widen(a), widen(b), d, *rest)


def _cast(self: Any, source: Any, dtype: Any) -> Any:
    if source.dtype.scalar != tl.float32 or dtype.scalar != tl.bfloat16:
        return _original_cast(self, source, dtype)
    bits = np.ascontiguousarray(source.data).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # halves go to the even neighbour
    return interpreter.TensorHandle(
        np.where(np.isnan(source.data), 0x7FC0, nearest).astype(np.uint16).reshape(source.data.shape), tl.bfloat16
    )


def _patch_lang_tensor(tensor: Any, scope: Any) -> None:
    _original_patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter.InterpreterBuilder.create_dot = _create_dot
interpreter.InterpreterBuilder.cast_impl = _cast
interpreter._patch_lang_tensor = _patch_lang_tensor
