"""The Triton kernels that verify drafts, in the interpreter, against reference_verify: chains, trees and padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import reference_verify, verify
from kernels.quantized_pages import FORMATS, page_rows
from tests.kernels.samples import normal
from tests.kernels.trees import MAX_NODES, VOCAB, Drafts, forests


@settings(max_examples=60)
@given(forests, st.integers(0, 999), st.sampled_from([MAX_NODES, 5, 2]))
def test_coupled_drafts(forest: list[tuple[int, ...]], seed: int, max_nodes: int) -> None:
    drafts = Drafts.build(forest, seed)
    expected = reference_verify.accept_coupled(*drafts.for_coupled, max_nodes)
    for actual, wanted in zip(verify.accept_coupled(*drafts.for_coupled, max_nodes), expected, strict=True):
        assert actual.tolist() == wanted.tolist()


def test_a_chain_longer_than_a_warp_is_accepted_up_to_its_first_mismatch() -> None:
    n = 100
    tokens = torch.arange(n)
    sampled = tokens + 1
    sampled[70] = 0
    arguments = (tokens, torch.arange(-1, n - 1), sampled, torch.tensor([0, n]), n)
    accepted, path = verify.accept_coupled(*arguments)
    assert accepted.tolist() == [70]
    assert path.tolist() == [[*range(1, 71), *[-1] * 29]]


@settings(max_examples=60)
@given(forests, st.integers(0, 9999), st.sampled_from([3.0, 1.0, 0.0]), st.sampled_from([MAX_NODES, 5]))
def test_ratio_drafts(forest: list[tuple[int, ...]], seed: int, sharpness: float, max_nodes: int) -> None:
    drafts = Drafts.build(forest, seed, sharpness)
    expected = reference_verify.accept_ratio(*drafts.for_ratio, max_nodes)
    for actual, wanted in zip(verify.accept_ratio(*drafts.for_ratio, max_nodes), expected, strict=True):
        assert actual.tolist() == wanted.tolist()


def test_ratio_drafts_over_a_vocabulary_of_several_blocks() -> None:
    vocab, n = verify.WALK_BLOCK + 300, 4
    target, draft = normal(2 * n, vocab, seed=1).softmax(-1), normal(2, vocab, seed=2).softmax(-1)
    tokens = torch.tensor([0, 5, 8200, 9, 0, 7, 8, 8400])
    parents = torch.tensor([-1, 0, 0, 2, -1, 0, 0, 0])
    draft_of, starts = torch.tensor([-1, 0, 1, -1, -1, -1, -1, -1]), torch.tensor([0, n, 2 * n])
    for seed in range(3):
        keys = torch.arange(2 * n) * 12345 + seed
        expected = reference_verify.accept_ratio(tokens, parents, target, draft, draft_of, keys, starts, n)
        actual = verify.accept_ratio(tokens, parents, target.clone(), draft, draft_of, keys, starts, n)
        assert [each.tolist() for each in actual] == [each.tolist() for each in expected]


def test_ratio_drafts_without_distributions_of_a_drafter() -> None:
    """All nodes were chosen with certainty: draft is empty and is not read. Frequencies, not only equality: the
    accepted share is the target's probability, and a rejected token does not come back."""
    n = 300
    target = torch.tensor([0.05, 0.3, 0.05, 0.2, 0.1, 0.1, 0.1, 0.1]).repeat(2 * n, 1)
    tokens, parents = torch.tensor([0, 1]).repeat(n), torch.tensor([-1, 0]).repeat(n)
    keys = torch.randint(-(2**63), 2**63 - 1, (2 * n,), generator=torch.Generator().manual_seed(0))
    certain, starts = torch.full((2 * n,), -1), torch.arange(n + 1) * 2
    arguments = (tokens, parents, target, torch.empty(0, VOCAB), certain, keys, starts, 2)
    expected = reference_verify.accept_ratio(*arguments)
    accepted, path, following = verify.accept_ratio(*arguments)
    assert [accepted.tolist(), path.tolist(), following.tolist()] == [each.tolist() for each in expected]
    assert abs(float(accepted.float().mean()) - 0.3) < 0.08  # three standard deviations
    assert 1 not in following[accepted == 0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, *FORMATS])
@settings(max_examples=15)
@given(forest=forests, seed=st.integers(0, 999))
def test_accepted_branches_move_into_place(dtype: torch.dtype, forest: list[tuple[int, ...]], seed: int) -> None:
    block_size, heads, d, n_pages = 4, 2, 8, 10
    drafts, generator = Drafts.build(forest, seed), torch.Generator().manual_seed(seed)
    n = len(drafts.tokens)
    slots = torch.randperm(n_pages * block_size, generator=generator)[:n]
    slots[torch.rand(n, generator=generator) < 0.1] = -1
    # Random bits, seen as bytes: what is moved need not be a number.
    shape = (n_pages, 2, heads, page_rows(block_size, d, dtype), d * dtype.itemsize)
    expected = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    actual = expected.clone()
    accepted, path = reference_verify.accept_coupled(*drafts.for_coupled, MAX_NODES)
    reference_verify.move_kv(expected.view(dtype), slots, path, drafts.starts, accepted)
    verify.move_kv(actual.view(dtype), slots, path, drafts.starts, accepted)
    assert torch.equal(actual, expected)
