"""A mixture of experts in place of one MLP: every token goes through the few that a router chooses for it (Shazeer et
al., 2017; as in Mixtral, Qwen2-MoE and Qwen3-MoE)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from engine.models.experts_config import ExpertsConfig
from engine.models.family import Activation
from engine.models.layers import GatedMlp, Linear, Projection
from kernels import Kernels


@dataclass(slots=True)
class Experts:
    """Gated MLPs, and what weighs them. Which expert a row meets, and in which order they are added, follows from that
    row alone, so that its result does not depend on the rows beside it.

    router: [n_experts, hidden], shared_gate: [1, hidden]. They keep their precision where other weights are quantised:
    they are small, and a rounded score would send a token to another expert.
    """

    router: Projection
    experts: list[GatedMlp]
    shared: GatedMlp | None
    shared_gate: Projection | None
    n_active: int
    is_normalised: bool

    @classmethod
    def on_meta(cls, config: ExpertsConfig, hidden: int, activation: Activation, dtype: torch.dtype) -> "Experts":
        """Shapes without memory, to be filled by loading."""

        def mlp(middle: int) -> GatedMlp:
            return GatedMlp.on_meta(hidden, middle, activation, dtype=dtype)

        return cls(
            router=Linear.on_meta(hidden, config.n_experts, keeps_precision=True, dtype=dtype),
            experts=[mlp(config.intermediate_size) for _ in range(config.n_experts)],
            shared=mlp(config.shared_size) if config.shared_size else None,
            shared_gate=Linear.on_meta(hidden, 1, keeps_precision=True, dtype=dtype) if config.shared_size else None,
            n_active=config.n_active,
            is_normalised=config.is_normalised,
        )

    @property
    def projections(self) -> Iterator[Projection]:
        """The router, those of every expert, and of the shared one."""
        yield self.router
        for expert in self.experts:
            yield from expert.projections
        if self.shared is not None and self.shared_gate is not None:
            yield from (self.shared_gate, *self.shared.projections)

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights float32 [n, n_active] and experts int64 [n, n_active] of every row: the largest of a softmax over
        all, or a softmax over the largest, which is the same scaled to a sum of one."""
        scores = self.router(x).float()
        if self.is_normalised:
            largest, chosen = scores.topk(self.n_active)
            return largest.softmax(-1), chosen
        weights, chosen = scores.softmax(-1).topk(self.n_active)
        return weights, chosen

    def __call__(self, x: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """[n, hidden] to [n, hidden]."""
        weights, chosen = self.route(x)
        out = torch.zeros_like(x)
        for expert in sorted(set(chosen.flatten().tolist())):
            rows, place = (chosen == expert).nonzero(as_tuple=True)
            part = self.experts[expert](x.index_select(0, rows), kernels)
            out.index_add_(0, rows, (part * weights[rows, place, None]).to(x.dtype))
        if self.shared is not None and self.shared_gate is not None:
            # The logistic function as a softmax against 0: torch's own gives a number other bits at the end of a tensor
            # than in its middle, so that it would depend on the rows beside it. Softmax goes row by row.
            share = torch.nn.functional.pad(self.shared_gate(x).float(), (0, 1)).softmax(-1)[:, :1]
            out += (share * self.shared(x, kernels)).to(x.dtype)
        return out
