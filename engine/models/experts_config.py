"""What a checkpoint says about its mixture of experts, as plain data. This module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """The sparse MLP: n_active of n_experts gated MLPs per token, each intermediate_size wide.

    shared_size: width of the gated MLP that every token goes through besides (None: there is none). is_normalised: the
    weights of a token's experts are scaled to a sum of one. layers: which layers are sparse; the others have one MLP.
    """

    n_experts: int
    n_active: int
    intermediate_size: int
    shared_size: int | None
    is_normalised: bool
    layers: frozenset[int]

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], style: Literal["none", "mixtral", "qwen"], n_layers: int
    ) -> "ExpertsConfig | None":
        """Read the keys of Mixtral or of Qwen's two families; None where no layer is sparse.

        Raises ValueError, naming the key that is wrong.
        """
        if style == "none":
            return None
        n_experts = _positive(raw, "num_local_experts" if "num_local_experts" in raw else "num_experts")
        n_active = _positive(raw, "num_experts_per_tok")
        if n_active > n_experts:
            raise ValueError(f"config.json: num_experts_per_tok is {n_active}, of {n_experts} experts")
        step, dense = raw.get("decoder_sparse_step", 1), set(raw.get("mlp_only_layers") or ())
        layers = frozenset(layer for layer in range(n_layers) if (layer + 1) % step == 0 and layer not in dense)
        if not layers:
            return None
        return cls(
            n_experts=n_experts,
            n_active=n_active,
            intermediate_size=_positive(raw, "intermediate_size" if style == "mixtral" else "moe_intermediate_size"),
            shared_size=raw.get("shared_expert_intermediate_size"),
            is_normalised=style == "mixtral" or bool(raw.get("norm_topk_prob", False)),
            layers=layers,
        )


def _positive(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {key} is {value!r}, it must be a positive integer")
    return value
