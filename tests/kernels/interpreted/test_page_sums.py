"""The Triton kernels that sum hidden states by page, in the interpreter, against reference.py: the same bits."""

import pytest
import torch

from kernels import page_sums, reference
from tests.kernels.samples import normal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [5, 300])
def test_add_page_sums(size: int, dtype: torch.dtype) -> None:
    segments = torch.tensor([[3, 0, 9, 1], [1, 9, 2, 0], [0, 0, 0, 1], [4, 11, 16, 0], [5, 27, 1, 1]]).int()
    states, sums = normal(28, size, seed=1).to(dtype), normal(6, size) * 100
    expected = sums.clone()
    reference.add_page_sums(expected, states, segments)
    page_sums.add_page_sums(sums, states, segments)
    assert torch.equal(sums, expected)


@pytest.mark.parametrize("size", [5, 300])
def test_carry_page_sums(size: int) -> None:
    links = torch.tensor([[2, -1], [0, -1], [3, 2], [-1, -1], [1, 0], [-1, 3], [4, 3]]).int()
    before, sums = normal(6, size), normal(6, size, seed=1)
    expected = before.clone()
    reference.carry_page_sums(expected, sums, links)
    page_sums.carry_page_sums(before, sums, links)
    assert torch.equal(before, expected)
