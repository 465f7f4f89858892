"""Draws on the GPU against their definition: the same tokens, from one row to hundreds, over vocabularies of all
sizes."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from kernels import cut, reference, sampling
from kernels.sampling_batch import LogitEdits, Sampled, SamplingBatch
from tests.gpu.machine import DEVICE, moved, pick
from tests.kernels.samples import normal, pack
from tests.kernels.sampling_batches import (
    assert_same_cut,
    assert_same_sample,
    check_distribution,
    copy_of,
    hidden,
    sampling_steps,
)


def to_cpu(value: Sampled) -> Sampled:
    """What was found, for comparisons there."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return Sampled(**{name: None if tensor is None else tensor.cpu() for name, tensor in fields.items()})


def check(logits: torch.Tensor, batch: SamplingBatch, most_unlike: int = 0) -> None:
    """logits, batch: on the CPU. The device's own exponentials and logarithms decide near-ties, which are rare:
    most_unlike draws of a batch may be others."""
    differing: list[int] = []
    if batch.is_cut:
        edited = logits.clone()
        if batch.edits is not None:
            reference.edit(edited, batch.edits)
        differing = assert_same_cut(cut.cut(moved(edited.clone()), moved(batch)).cpu(), hidden(logits, batch), batch)
    found = to_cpu(sampling.sample(moved(logits.clone()), moved(batch)))
    # On the device, too: torch puts equal log-probabilities in an order of each device's own.
    expected = to_cpu(reference.sample(moved(logits.clone()), moved(batch)))
    allowed = expected.n_allowed
    unlike = [
        row
        for row in (found.tokens != expected.tokens).nonzero()[:, 0].tolist()
        if row not in differing and (allowed is None or allowed[row] > 0)
    ]
    assert len(unlike) <= most_unlike, f"rows {unlike} draw other tokens"
    assert_same_sample(found, expected, batch, [*differing, *unlike])


@settings(max_examples=pick(150, 8), suppress_health_check=[HealthCheck.too_slow])
@given(sampling_steps(pick((1, 33, 1500, 32_000, 128_256), (20, 33))))
def test_a_step_of_any_rows_equals_its_definition(step: tuple[torch.Tensor, SamplingBatch]) -> None:
    check(*step, most_unlike=1)


@pytest.mark.parametrize("vocab", pick([32_000, 128_256, 151_936], [320]))
@pytest.mark.parametrize("rows", pick([1, 7, 256], [3]))
@pytest.mark.parametrize("kind", ["greedy", "free", "masked", "cut", "edited"])
def test_large_steps(kind: str, rows: int, vocab: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    logits = normal(rows, vocab, seed=rows) * 3
    batch = SamplingBatch(torch.full((rows,), 0.8), torch.randint(0, 2**62, (rows,), generator=generator))
    if kind == "greedy":
        batch = dataclasses.replace(batch, temperatures=torch.zeros(rows))
    elif kind == "masked":
        bits = torch.rand(rows, -(-vocab // 32) * 32, generator=generator) < 0.01
        bits[:, 5] = True
        mask_of = torch.arange(rows, dtype=torch.int32)
        mask_of[::3] = -1
        batch = dataclasses.replace(batch, masks=pack(bits), mask_of=mask_of)
    elif kind == "cut":
        top_k = torch.tensor([0, 1, 50, 1000], dtype=torch.int32)[torch.arange(rows) % 4]
        batch = dataclasses.replace(batch, top_k=top_k, top_p=torch.full((rows,), 0.9))
    elif kind == "edited":
        places = torch.randperm(rows * vocab, generator=generator)[:1000]
        ones = torch.ones(len(places))
        edits = LogitEdits((places // vocab).int(), (places % vocab).int(), 3 * ones, 1.2 * ones, 0.5 * ones)
        asking = torch.arange(0, rows, 2)
        batch = dataclasses.replace(batch, edits=edits, logprobs_of=asking, n_top=5)
    check(logits, batch, most_unlike=rows // 100 + 1)


def test_a_row_gives_the_same_bits_alone_and_beside_any_others() -> None:
    rows, vocab = pick((64, 50_257), (4, 100))
    logits = normal(rows, vocab) * 3
    keys = torch.randint(0, 2**62, (rows,), generator=torch.Generator().manual_seed(1))
    batch = SamplingBatch(torch.full((rows,), 1.1), keys, top_p=torch.full((rows,), 0.9))
    together = sampling.sample(moved(logits), moved(batch)).tokens.tolist()
    for row in range(0, rows, pick(9, 2)):
        part = moved(copy_of(batch, [row]))
        assert sampling.sample(moved(logits[[row]]), part).tokens.tolist() == [together[row]]


def test_draws_are_distributed_as_the_softmax_under_mask_and_top_p() -> None:
    def sample(logits: torch.Tensor, batch: SamplingBatch) -> Sampled:
        return to_cpu(sampling.sample(moved(logits), moved(batch)))

    check_distribution(sample, pick(20_000, 200))


def test_a_draw_can_be_recorded_and_replayed() -> None:
    if DEVICE.type != "cuda":
        pytest.skip("nothing is recorded on a CPU")
    logits, keys = moved(normal(8, 32_000)), torch.arange(8, device=DEVICE)
    batch = SamplingBatch(torch.full((8,), 0.9, device=DEVICE), keys, top_p=torch.full((8,), 0.9, device=DEVICE))
    expected = sampling.sample(logits, batch).tokens.clone()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = sampling.sample(logits, batch).tokens
    graph.replay()
    assert torch.equal(found, expected)
