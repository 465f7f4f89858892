"""Drafts are verified on the GPU as their definitions say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import reference_verify, verify
from kernels.quantized_pages import FORMATS, page_rows
from tests.gpu.machine import DEVICE, moved, pick
from tests.kernels.samples import normal
from tests.kernels.trees import MAX_NODES, Drafts, forests

several = settings(max_examples=pick(200, 5))


@several
@given(forests, st.integers(0, 999), st.sampled_from([MAX_NODES, 5, 2]))
def test_coupled_drafts(forest: list[tuple[int, ...]], seed: int, max_nodes: int) -> None:
    arguments = Drafts.build(forest, seed).for_coupled
    expected = reference_verify.accept_coupled(*arguments, max_nodes)
    for actual, wanted in zip(verify.accept_coupled(*moved(arguments), max_nodes), expected, strict=True):
        assert actual.tolist() == wanted.tolist()


@several
@given(forests, st.integers(0, 9999), st.sampled_from([3.0, 1.0]), st.sampled_from([MAX_NODES, 5]))
def test_ratio_drafts(forest: list[tuple[int, ...]], seed: int, sharpness: float, max_nodes: int) -> None:
    drafts = Drafts.build(forest, seed, sharpness)
    expected = reference_verify.accept_ratio(*drafts.for_ratio, max_nodes)
    for actual, wanted in zip(verify.accept_ratio(*moved(drafts.for_ratio), max_nodes), expected, strict=True):
        assert actual.tolist() == wanted.tolist()


def test_ratio_drafts_over_a_large_vocabulary() -> None:
    vocab, n = pick(128_256, 400), 4
    target, draft = normal(2 * n, vocab, seed=1).softmax(-1), normal(2, vocab, seed=2).softmax(-1)
    tokens, parents = torch.tensor([0, 5, 82, 9, 0, 7, 8, 84]), torch.tensor([-1, 0, 0, 2, -1, 0, 0, 0])
    draft_of, starts = torch.tensor([-1, 0, 1, -1, -1, -1, -1, -1]), torch.tensor([0, n, 2 * n])
    for seed in range(pick(20, 2)):
        keys = torch.arange(2 * n) * 12345 + seed
        expected = reference_verify.accept_ratio(tokens, parents, target.clone(), draft, draft_of, keys, starts, n)
        arguments = moved((tokens, parents, target.clone(), draft, draft_of, keys, starts))
        actual = verify.accept_ratio(*arguments, n)
        assert [each.tolist() for each in actual] == [each.tolist() for each in expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, *FORMATS])
@pytest.mark.parametrize("head_dim", pick([64, 128, 256], [8]))
def test_accepted_branches_move_into_place(head_dim: int, dtype: torch.dtype) -> None:
    block_size, heads, n_pages = 16, 8, 40
    generator = torch.Generator().manual_seed(head_dim)
    forest = [(-1, 0, 0, 1, 1, 2, 4), (-1, 0, 1, 2, 3, 4), (), (-1,), (-1, 0, 0, 0, 3)]
    drafts = Drafts.build(forest, 1)
    slots = torch.randperm(n_pages * block_size, generator=generator)[: len(drafts.tokens)]
    shape = (n_pages, 2, heads, page_rows(block_size, head_dim, dtype), head_dim * dtype.itemsize)
    expected = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    actual = expected.to(DEVICE, copy=True)
    accepted, path = torch.tensor([3, 5, 0, 0, 2]), torch.full((5, MAX_NODES - 1), -1)
    path[0, :3], path[1, :5], path[4, :2] = torch.tensor([1, 4, 6]), torch.arange(1, 6), torch.tensor([3, 4])
    reference_verify.move_kv(expected.view(dtype), slots, path, drafts.starts, accepted)
    verify.move_kv(actual.view(dtype), *moved((slots, path, drafts.starts, accepted)))
    assert torch.equal(actual.cpu(), expected)
