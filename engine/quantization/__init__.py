"""Forms of a matrix product: which arithmetic, over which stored weights. Linears are converted as they are loaded."""

from engine.quantization.convert import converter
from engine.quantization.int4 import Int4Linear
from engine.quantization.linear import NativeLinear, TiledLinear
from engine.quantization.w8a8 import W8A8Linear
from engine.quantization.weight_only import Weight4Linear, Weight8Linear

__all__ = [
    "Int4Linear",
    "NativeLinear",
    "TiledLinear",
    "W8A8Linear",
    "Weight4Linear",
    "Weight8Linear",
    "converter",
]
