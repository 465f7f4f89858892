"""Sampling on a CPU against its definition, and the definition against a plain loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import cpu_sampling, reference
from kernels.sampling_batch import SamplingBatch
from tests.kernels.samples import normal, pack
from tests.kernels.sampling_batches import (
    assert_same_cut,
    assert_same_sample,
    check_distribution,
    hidden,
    sampling_steps,
)

Step = tuple[torch.Tensor, SamplingBatch]


@given(sampling_steps((1, 31, 32, 33, 3000)))
def test_a_step_of_any_rows_equals_its_definition(step: Step) -> None:
    logits, batch = step
    differing: list[int] = []
    masked = hidden(logits, batch)
    drawn = batch.temperatures != 0.0
    if batch.is_cut:
        found = torch.where(drawn, cpu_sampling.cut(masked, batch, 4), -math.inf)
        differing = assert_same_cut(found, masked, batch)
    found_sample = cpu_sampling.sample(logits.clone(), batch)
    assert_same_sample(found_sample, reference.sample(logits.clone(), batch), batch, differing)


@given(st.integers(1, 5), st.sampled_from([1, 31, 32, 33, 300]), st.integers(0, 10**6))
def test_a_packed_mask_is_read_bit_by_bit(n_rows: int, vocab: int, seed: int) -> None:
    bits = torch.rand(n_rows, -(-vocab // 32) * 32, generator=torch.Generator().manual_seed(seed)) < 0.5
    assert torch.equal(reference.unpack_mask(pack(bits), vocab), bits[:, :vocab])
    wider = reference.unpack_mask(pack(bits), vocab + 40)
    assert not wider[:, bits.shape[1] :].any()


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.9999999])
def test_the_nucleus_of_a_large_flat_vocabulary_is_found_beyond_the_first_candidates(top_p: float) -> None:
    logits = normal(1, 5000) * 0.01
    batch = SamplingBatch(torch.ones(1), torch.zeros(1, dtype=torch.int64), top_p=torch.tensor([top_p]))
    kept = int((logits[0] >= cpu_sampling.cut(logits, batch)[0]).sum())
    shares = logits[0].double().softmax(-1).sort(descending=True).values.cumsum(0)
    assert kept == min(5000, int((shares < top_p).sum()) + 1)


def test_equal_logits_stay_or_go_together() -> None:
    logits = torch.zeros(3, 40)
    logits[:, 10:20] = 1.0
    batch = SamplingBatch(
        torch.ones(3),
        torch.zeros(3, dtype=torch.int64),
        top_k=torch.tensor([3, 0, 0], dtype=torch.int32),
        top_p=torch.tensor([1.0, 0.01, 1.0]),
        min_p=torch.tensor([0.0, 0.0, 0.9]),
    )
    for keep_from in (reference.cut(logits, batch), cpu_sampling.cut(logits, batch)):
        for row in range(3):
            assert (logits[row] >= keep_from[row]).nonzero().flatten().tolist() == list(range(10, 20))


def test_draws_are_distributed_as_the_softmax_under_mask_and_top_p() -> None:
    check_distribution(reference.sample, 20_000)
    check_distribution(cpu_sampling.sample, 20_000)
