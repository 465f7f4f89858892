"""A mixture of experts: every row gets what it would get alone, from the experts that its scores are highest for."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.models.experts import Experts
from engine.models.layers import GatedMlp, Linear
from kernels import kernels_for

HIDDEN, WIDTH = 8, 6
KERNELS = kernels_for(torch.device("cpu"))


def linear(n_out: int, n_in: int, generator: torch.Generator) -> Linear:
    return Linear(torch.randn(n_out, n_in, generator=generator))


def build_experts(n_experts: int, n_active: int, *, is_shared: bool, is_normalised: bool, seed: int) -> Experts:
    g = torch.Generator().manual_seed(seed)

    def mlp() -> GatedMlp:
        return GatedMlp(linear(2 * WIDTH, HIDDEN, g), linear(HIDDEN, WIDTH, g), "silu")

    return Experts(
        router=linear(n_experts, HIDDEN, g),
        experts=[mlp() for _ in range(n_experts)],
        shared=mlp() if is_shared else None,
        shared_gate=linear(1, HIDDEN, g) if is_shared else None,
        n_active=n_active,
        is_normalised=is_normalised,
    )


def by_hand(experts: Experts, row: list[float]) -> list[float]:
    """One row in plain numbers."""

    def product(projection: object, x: list[float]) -> list[float]:
        assert isinstance(projection, Linear)
        return [sum(w * v for w, v in zip(weights, x, strict=True)) for weights in projection.weight.tolist()]

    def mlp(one: GatedMlp) -> list[float]:
        both = product(one.gate_up, row)
        return product(one.down, [g / (1 + math.exp(-g)) * u for g, u in zip(both[:WIDTH], both[WIDTH:], strict=True)])

    scores = [math.exp(score) for score in product(experts.router, row)]
    chosen = sorted(range(len(scores)), key=lambda i: -scores[i])[: experts.n_active]
    whole = sum(scores[i] for i in chosen) if experts.is_normalised else sum(scores)
    out = [0.0] * HIDDEN
    for i in chosen:
        out = [o + scores[i] / whole * y for o, y in zip(out, mlp(experts.experts[i]), strict=True)]
    if experts.shared is not None:
        share = 1 / (1 + math.exp(-product(experts.shared_gate, row)[0]))
        out = [o + share * y for o, y in zip(out, mlp(experts.shared), strict=True)]
    return out


@given(
    n_rows=st.integers(1, 9),
    sizes=st.sampled_from([(1, 1), (4, 2), (6, 6), (7, 3)]),
    is_shared=st.booleans(),
    is_normalised=st.booleans(),
    seed=st.integers(0, 999),
)
def test_rows_meet_the_experts_of_their_highest_scores(
    n_rows: int, sizes: tuple[int, int], is_shared: bool, is_normalised: bool, seed: int
) -> None:
    experts = build_experts(*sizes, is_shared=is_shared, is_normalised=is_normalised, seed=seed)
    x = torch.randn(n_rows, HIDDEN, generator=torch.Generator().manual_seed(seed + 1))
    expected = torch.tensor([by_hand(experts, row) for row in x.tolist()])
    torch.testing.assert_close(experts(x, KERNELS), expected, atol=1e-4, rtol=1e-4)


@given(picked=st.lists(st.integers(0, 11), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_row_is_the_same_bits_in_any_company(picked: list[int], seed: int) -> None:
    """With products that do not depend on their company: one row at a time. The mixture then must not either."""

    class RowByRow:
        n_bytes = 0

        def __init__(self, weight: torch.Tensor) -> None:
            self.weight = weight

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.weight @ row for row in x])

    experts = build_experts(5, 2, is_shared=True, is_normalised=True, seed=seed)
    for holder in (experts, experts.shared, *experts.experts):
        for name in ("router", "shared_gate", "gate_up", "down"):
            held = getattr(holder, name, None)
            if isinstance(held, Linear):
                setattr(holder, name, RowByRow(held.weight))
    x = torch.randn(12, HIDDEN, generator=torch.Generator().manual_seed(seed + 1))
    assert torch.equal(experts(x, KERNELS)[picked], experts(x[picked], KERNELS))
