"""CPU kernels in C, for machines with AVX-512 that have a compiler: compiled once, loaded with ctypes, torch elsewhere.

`python -m kernels.native` compiles them ahead of time, beside this package.
"""

from kernels.native.build import BuildFailed, compile_library, find_library
from kernels.native.library import NativeLibrary

__all__ = ["BuildFailed", "NativeLibrary", "compile_library", "find_library"]
