"""Sums of hidden states by page: the CPU's form against the definition, and the law that both are there for."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import cpu, reference
from tests.kernels.samples import normal

SIZE, N_PAGES = 3, 6


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=N_PAGES), st.integers(0, 2), st.integers(0, 99))
def test_the_form_of_a_cpu_equals_the_definition(counts: list[tuple[int, bool]], gap: int, seed: int) -> None:
    """gap: tokens between segments that are in none."""
    pages = torch.randperm(N_PAGES, generator=torch.Generator().manual_seed(seed)).tolist()
    segments, first = [], 0
    for page, (count, begins) in zip(pages, counts, strict=False):
        segments.append((page, first, count, int(begins)))
        first += count + gap
    packed = torch.tensor(segments, dtype=torch.int32).view(-1, 4)
    states, sums = normal(first, SIZE, seed=seed), normal(N_PAGES, SIZE, seed=seed + 1)
    expected = sums.clone()
    reference.add_page_sums(expected, states, packed)
    cpu.add_page_sums(sums, states, packed)
    assert torch.equal(sums, expected)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_sums_are_the_same_bits_however_their_tokens_come(cuts: list[int]) -> None:
    states = normal(sum(cuts), SIZE) * 1000
    whole, parts, first = torch.ones(1, SIZE), torch.ones(1, SIZE), 0
    reference.add_page_sums(whole, states, torch.tensor([[0, 0, len(states), 1]]))
    for count in cuts:
        reference.add_page_sums(parts, states[first:], torch.tensor([[0, 0, count, int(first == 0)]]))
        first += count
    assert torch.equal(parts, whole)
