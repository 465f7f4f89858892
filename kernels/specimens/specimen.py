"""One launch of a Triton kernel, described so that it can be compiled without being made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Specimen"]


@dataclass(frozen=True, slots=True)
class Specimen:
    """A kernel with the types and constants of a launch that the engine makes.

    types: by argument, as "*bf16", "i32" or "fp32"; constants: by constexpr argument. Pointers, and the scalars in
    `aligned`, are multiples of 16. stages: of the software pipeline (None: the compiler's default). stack_allowance:
    bytes of local memory a thread may use, where that is known and meant. min_capability, max_capability: as in sm_90,
    below and above which the engine does not launch it. wants_tensor_cores: whether tensor-core instructions must
    appear.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    aligned: tuple[str, ...] = ()
    warps: int = 4
    stages: int | None = None
    stack_allowance: int = 0
    min_capability: int = 80
    max_capability: int = 999
    wants_tensor_cores: bool = False

    def targets(self, capabilities: Sequence[int]) -> list[int]:
        """Those of the capabilities that the engine launches it on, or where it launches it on none of them, the lowest
        that it does."""
        fitting = [each for each in capabilities if self.min_capability <= each <= self.max_capability]
        return fitting or [self.min_capability]
