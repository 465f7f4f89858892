"""How a checkpoint rotates queries and keys, as plain data. This module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

RopeKind = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]
KINDS: tuple[RopeKind, ...] = get_args(RopeKind)

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_KNOWN = {
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor",
    "high_freq_factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim", "attention_factor",
    "short_factor", "long_factor", "partial_rotary_factor",
    "finetuned",  # says how the checkpoint came to be, not what to compute
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary embedding; rope.rope_frequencies says what each kind computes with these.

    original_max_position: positions of the pretraining, which the scaling starts from. attention_factor: what cos and
    sin are multiplied by (None: the kind's own formula, which for yarn takes mscales).
    """

    kind: RopeKind = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    original_max_position: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    is_truncated: bool = True
    mscales: tuple[float, float] | None = None
    attention_factor: float | None = None
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    @classmethod
    def from_dict(
        cls,
        options: Mapping[str, Any],
        *,
        theta: float,
        max_position: int,
        original_max_position: int | None,
        head_dim: int,
    ) -> "RopeConfig":
        """Read `rope_scaling` (transformers 4) or `rope_parameters` (5); the arguments are what stands beside it.

        Raises ValueError, naming what is missing or cannot be computed.
        """
        kind = _kind(options)
        partial = options.get("partial_rotary_factor")
        if partial not in (None, 1, 1.0):
            raise ValueError(f"config.json: partial_rotary_factor is {partial}; only full rotation is supported")
        original = original_max_position or options.get("original_max_position_embeddings") or max_position
        factor = options.get("factor")
        if factor is None:
            factor = max_position / original if kind == "longrope" else 1.0
        if factor <= 0:
            raise ValueError(f"config.json: the factor of rope type {kind!r} is {factor}: it must be positive")
        mscale, mscale_all_dim = options.get("mscale"), options.get("mscale_all_dim")
        rope = cls(
            kind=kind,
            theta=float(options.get("rope_theta") or theta),
            factor=float(factor),
            original_max_position=max_position if kind == "dynamic" else original,
            low_freq_factor=float(options.get("low_freq_factor", 1.0)),
            high_freq_factor=float(options.get("high_freq_factor", 4.0)),
            beta_fast=float(options.get("beta_fast") or 32.0),
            beta_slow=float(options.get("beta_slow") or 1.0),
            is_truncated=bool(options.get("truncate", True)),
            mscales=(float(mscale), float(mscale_all_dim)) if mscale and mscale_all_dim else None,
            attention_factor=options.get("attention_factor"),
            short_factors=tuple(map(float, options.get("short_factor") or ())),
            long_factors=tuple(map(float, options.get("long_factor") or ())),
        )
        for name, factors in (("short_factor", rope.short_factors), ("long_factor", rope.long_factors)):
            if kind == "longrope" and len(factors) != head_dim // 2:
                raise ValueError(f"config.json: {name} has {len(factors)} numbers, head_dim asks for {head_dim // 2}")
        return rope

    @property
    def max_position(self) -> int:
        """Positions that the scaling is meant for: YaRN's own stretch of the pretraining, 0 where the kind says
        nothing."""
        return int(self.original_max_position * self.factor) if self.kind == "yarn" else 0

    def is_long(self, max_model_len: int) -> bool:
        """Whether an engine of so many positions goes beyond the pretraining: what `dynamic` and `longrope` depend
        on."""
        return max_model_len > self.original_max_position

    def scheme(self, max_model_len: int) -> str:
        """A name of the rotation in an engine of so many positions: the same name, the same rotation of every token."""
        frozen = ""
        if self.kind == "dynamic":
            frozen = f"@{max(max_model_len, self.original_max_position)}"
        elif self.kind == "longrope":
            frozen = "@long" if self.is_long(max_model_len) else "@short"
        return f"{self}{frozen}"


def _kind(options: Mapping[str, Any]) -> RopeKind:
    name = options.get("rope_type", options.get("type", "default"))
    kind = next((kind for kind in KINDS if kind == name), None)
    if kind is None:
        raise ValueError(f"config.json: rope type {name!r} is not supported; {', '.join(KINDS)} are")
    unknown = sorted(options.keys() - _KNOWN)
    if unknown:
        raise ValueError(f"config.json: the rope options {unknown} are not supported; known are {sorted(_KNOWN)}")
    missing = [key for key in _NEEDED.get(kind, ()) if options.get(key) is None]
    if missing:
        raise ValueError(f"config.json: rope type {kind!r} needs {', '.join(missing)}")
    return kind
