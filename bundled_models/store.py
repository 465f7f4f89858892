"""One set of weights in shared memory, trained by several processes, and the rule that updates it.

    values   fp32  [ embedding, norms | matrices of the layers ]      one place, all workers
    working  bf16  the same, rounded: what forward and backward read
    grads    bf16  one line per worker
    momenta  fp32  Muon's for the matrices; Adam's first moment for the rest
    second   fp32  Adam's second moment

A step is exact synchronous descent: each worker writes its gradient, then updates its own share of the weights with the
sum of all gradients. Matrices move by Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), the rest
by Adam (Kingma and Ba, 2015).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bundled_models.model import Block, Shape, TinyLlama

MOMENTUM, WEIGHT_DECAY = 0.95, 0.01
BETAS, ADAM_EPS = (0.9, 0.95), 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates of one step."""

    matrix: float
    other: float


def orthogonal(x: Tensor) -> Tensor:
    """Matrices with the same singular vectors and singular values near 1. x: [count, rows, columns]."""
    a, b, c = NEWTON_SCHULZ
    wide = x.shape[1] <= x.shape[2]
    y = (x if wide else x.mT).to(torch.bfloat16)
    y = y / y.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return (y if wide else y.mT).float()


def _place(model: TinyLlama, flat: Tensor, grad: Tensor | None) -> None:
    """Make the parameters of `model` views of `flat` (and their gradients of `grad`), matrices last."""
    named = sorted(model.named_parameters(), key=lambda item: _is_matrix(item[0]))
    at = 0
    for name, old in named:
        parameter = nn.Parameter(flat[at : at + old.numel()].view(old.shape), requires_grad=grad is not None)
        if grad is not None:
            parameter.grad = grad[at : at + old.numel()].view(old.shape)
        at += old.numel()
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, parameter)


def _is_matrix(name: str) -> bool:
    return name.startswith("layers.") and not name.endswith("layernorm")


class Store:
    """The shared arrays of one run. It can be sent to another process of `torch.multiprocessing`."""

    def __init__(self, shape: Shape, workers: int, precision: torch.dtype = torch.bfloat16) -> None:
        start = TinyLlama(shape)
        named = dict(start.named_parameters())
        size = sum(p.numel() for p in named.values())
        self.shape, self.workers = shape, workers
        self.others = sum(p.numel() for n, p in named.items() if not _is_matrix(n))
        self.values = torch.empty(size)
        self.working = torch.empty(size, dtype=precision)
        self.grads = torch.zeros(workers, size, dtype=precision)
        self.momenta = torch.zeros(size)
        self.second = torch.zeros(self.others)
        self.totals = torch.zeros(workers, 3, dtype=torch.float64)  # loss, its weight, tokens
        self.squares = torch.zeros(workers, dtype=torch.float64)
        self.updates = torch.zeros(1, dtype=torch.int64)
        master = self.master()
        master.load_state_dict(start.state_dict())
        self.refresh()
        shared = (self.values, self.working, self.grads, self.momenta, self.second)
        for tensor in (*shared, self.totals, self.squares, self.updates):
            tensor.share_memory_()  # type: ignore[no-untyped-call]

    def master(self) -> TinyLlama:
        """A model whose weights are `values`."""
        model = TinyLlama(self.shape)
        _place(model, self.values, None)
        return model

    def model(self, worker: int) -> TinyLlama:
        """A model whose weights are `working` and whose gradients are the worker's line of `grads`."""
        model = TinyLlama(self.shape)
        _place(model, self.working, self.grads[worker])
        return model

    def refresh(self) -> None:
        """Round all weights to the working precision."""
        self.working.copy_(self.values)

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights."""
        return {"momenta": self.momenta, "second": self.second, "updates": self.updates}

    def load(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take over weights and state. Raises RuntimeError where the shapes differ."""
        self.master().load_state_dict(weights)
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.refresh()


class Updater:
    """One worker's share of the update."""

    def __init__(self, store: Store, worker: int) -> None:
        self.store, self.worker = store, worker
        parts = store.workers
        bounds = [store.others * i // parts for i in range(parts + 1)]
        self.slice = slice(bounds[worker], bounds[worker + 1])
        # the places of the worker's matrices in the flat arrays, by shape: equal shapes are computed together
        self.matrices: dict[tuple[int, int], list[int]] = {}
        begins = self._begins()
        for index, (shape, begin) in enumerate(sorted(begins)):
            if index % parts == worker:
                self.matrices.setdefault(shape, []).append(begin)
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._other = torch.empty(0)

    def _begins(self) -> list[tuple[tuple[int, int], int]]:
        master = self.store.master()
        base = self.store.values.data_ptr()
        return [
            ((matrix.shape[0], matrix.shape[1]), (matrix.data_ptr() - base) // 4)
            for block in master.layers
            if isinstance(block, Block)
            for matrix in block.matrices().values()
        ]

    def _stack(self, flat: Tensor, shape: tuple[int, int]) -> list[Tensor]:
        size = shape[0] * shape[1]
        return [flat[begin : begin + size].view(shape) for begin in self.matrices[shape]]

    @torch.no_grad()
    def collect(self) -> None:
        """Sum all workers' gradients of this worker's share, and leave the square of their norm in the store."""
        weight = float(self.store.totals[:, 1].sum())
        grads = self.store.grads
        self._other = grads[:, self.slice].float().sum(0) / weight
        square = self._other.square().sum()
        for shape in self.matrices:
            lines = [torch.stack(self._stack(line, shape)).float() for line in grads]
            self._sums[shape] = sum(lines[1:], lines[0]) / weight
            square += self._sums[shape].square().sum()
        self.store.squares[self.worker] = square.double()

    @torch.no_grad()
    def update(self, rates: Rates, clip: float = 1.0) -> float:
        """Move this worker's share, with gradients shortened to norm `clip` in all; returns the norm before."""
        store = self.store
        norm = float(store.squares.sum().sqrt())
        factor = min(1.0, clip / (norm + 1e-6))
        self._adam(self._other * factor, rates.other, int(store.updates[0]) + 1)
        for shape, grad in self._sums.items():
            grad = grad * factor
            momenta = self._stack(store.momenta, shape)
            stacked = torch.stack(momenta).lerp_(grad, 1 - MOMENTUM)
            step = orthogonal(grad.lerp(stacked, MOMENTUM)) * (rates.matrix * max(1.0, shape[0] / shape[1]) ** 0.5)
            values, working = self._stack(store.values, shape), self._stack(store.working, shape)
            for index, value in enumerate(values):
                momenta[index].copy_(stacked[index])
                value.mul_(1 - rates.matrix * WEIGHT_DECAY).sub_(step[index])
                working[index].copy_(value)
        return norm

    def _adam(self, grad: Tensor, rate: float, updates: int) -> None:
        store, own = self.store, self.slice
        first, second = store.momenta[own].lerp_(grad, 1 - BETAS[0]), store.second[own]
        second.lerp_(grad.square(), 1 - BETAS[1])
        scale = (second / (1 - BETAS[1] ** updates)).sqrt_().add_(ADAM_EPS)
        store.values[own].addcdiv_(first, scale, value=-rate / (1 - BETAS[0] ** updates))
        store.working[own] = store.values[own].to(store.working.dtype)
