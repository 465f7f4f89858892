"""The small model's prefill of a prompt, as the router reads it: plain arrays that the gateway carries over."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PrefillState:
    """What the small model's prefill of a prompt left behind.

    values: float32 [n_layers, 2, hidden], the chosen layers' hidden state of the last token and its mean over the
    prompt. entropy (nats) and margin (logit difference of the best two) are of the first next token.
    """

    values: NDArray[np.float32]
    entropy: float
    margin: float

    def __post_init__(self) -> None:
        """Raise ValueError for a shape that is not [n_layers, 2, hidden], or for values that are not finite."""
        if self.values.ndim != 3 or self.values.shape[1] != 2 or 0 in self.values.shape:
            raise ValueError(f"a prefill state has shape [n_layers, 2, hidden], not {list(self.values.shape)}")
        if not (math.isfinite(self.entropy) and math.isfinite(self.margin) and np.isfinite(self.values).all()):
            raise ValueError("the prefill state holds a value that is not finite")

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        shape: tuple[int, ...],
        entropy: float,
        margin: float,
        *,
        dtype: Literal["float16", "float32"] = "float32",
    ) -> "PrefillState":
        """Read little-endian bytes (float32 in the engine's `Prepared` event). ValueError: size and shape disagree."""
        flat = np.frombuffer(data, "<f4" if dtype == "float32" else "<f2")
        if flat.size != math.prod(shape):
            raise ValueError(f"the state holds {flat.size} values of {dtype}, but its shape is {list(shape)}")
        return cls(flat.astype(np.float32, copy=False).reshape(shape), entropy, margin)
