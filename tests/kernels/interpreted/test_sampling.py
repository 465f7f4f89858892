"""The sampling kernels in the interpreter against reference.sample, reference.cut and reference.edit. Tiny shapes: the
interpreter is slow."""

import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import cut, reference, sampling
from kernels.sampling_batch import SamplingBatch
from tests.kernels.samples import normal, pack
from tests.kernels.sampling_batches import (
    assert_same_cut,
    assert_same_sample,
    check_distribution,
    copy_of,
    hidden,
    sampling_steps,
)

# numpy, in which the interpreter computes, warns of what a row makes of no allowed token at all.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

VOCABS = (1, 20, 33, 64, 100, 1500)
Step = tuple[torch.Tensor, SamplingBatch]
slow = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(sampling_steps(VOCABS))
def test_a_step_of_any_rows_equals_its_definition(step: Step) -> None:
    logits, batch = step
    differing: list[int] = []
    if batch.is_cut:
        masked = logits.clone()
        if batch.edits is not None:
            reference.edit(masked, batch.edits)
        differing = assert_same_cut(cut.cut(masked, batch), hidden(logits, batch), batch)
    found = sampling.sample(logits.clone(), batch)
    assert_same_sample(found, reference.sample(logits.clone(), batch), batch, differing)


@slow
@given(sampling_steps((40, 1100)), st.data())
def test_a_row_gives_the_same_bits_alone_and_beside_any_others(step: Step, data: st.DataObject) -> None:
    logits, batch = step
    order = data.draw(st.permutations(range(len(logits))))
    together = sampling.sample(logits[order].clone(), copy_of(batch, order))
    n_logprobs = 0
    for at, row in enumerate(order):
        part = copy_of(batch, [row])
        alone = sampling.sample(logits[[row]].clone(), part)
        assert alone.tokens[0] == together.tokens[at]
        if part.logprobs_of is not None:
            assert alone.logprobs is not None
            assert together.logprobs is not None
            assert torch.equal(alone.logprobs[0], together.logprobs[n_logprobs]) or alone.logprobs[0].isnan()
            n_logprobs += 1


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(
    "asked",
    [
        {"top_k": 1}, {"top_k": 57}, {"top_p": 0.5}, {"top_p": 0.999}, {"top_k": 80, "top_p": 0.9},
        {"top_k": 80, "top_p": 0.9, "min_p": 0.2},
    ],
)  # fmt: skip
def test_a_cut_over_several_blocks_of_a_row(
    asked: dict[str, float], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "MAX_BLOCK", 512)
    vocab = 512 * blocks - 77
    logits = torch.cat([normal(2, vocab) * 3, normal(1, vocab) * 1e-3, torch.zeros(1, vocab), normal(1, vocab) - 1e30])
    logits[4, 7] = 1e30  # as a bias makes it
    dtypes = {"top_k": torch.int32, "top_p": torch.float32, "min_p": torch.float32}
    batch = SamplingBatch(
        torch.tensor([1.0, 0.2, 0.01, 1.0, 1.0]),
        torch.arange(5),
        **{name: torch.full((5,), value).to(dtypes[name]) for name, value in asked.items()},
    )
    assert_same_cut(cut.cut(logits.clone(), batch), logits, batch)


def test_a_row_that_asks_for_no_cut_keeps_everything_and_its_logits() -> None:
    logits = normal(3, 100)
    masks = pack(torch.zeros(1, 128, dtype=torch.bool).index_fill_(1, torch.tensor([5, 6]), True))
    mask_of = torch.tensor([0, 0, 0], dtype=torch.int32)
    top_k = torch.tensor([0, 1, 1], dtype=torch.int32)
    batch = SamplingBatch(torch.tensor([1.0, 0.0, 1.0]), torch.arange(3), masks, mask_of, top_k)
    changed = logits.clone()
    assert cut.cut(changed, batch)[:2].tolist() == [-math.inf, -math.inf]
    assert torch.equal(changed[:2], logits[:2])


def test_a_mask_narrower_than_the_vocabulary_and_one_choice() -> None:
    bits = torch.zeros(1, 32, dtype=torch.bool)
    bits[0, 31] = True  # the sign bit of the word
    batch = SamplingBatch(torch.ones(1), torch.tensor([5]), pack(bits), torch.zeros(1, dtype=torch.int32))
    found = sampling.sample(torch.zeros(1, 100), batch)
    assert found.tokens.tolist() == [31]
    assert found.n_allowed is not None
    assert found.n_allowed.tolist() == [1]


def test_logits_of_which_some_are_no_numbers_still_give_a_token_of_the_vocabulary() -> None:
    logits = normal(2, 1030)
    logits[:, ::2] = math.nan
    batch = SamplingBatch(torch.tensor([0.0, 1.0]), torch.arange(2), top_p=torch.full((2,), 0.5))
    tokens = sampling.sample(logits, batch).tokens
    assert bool(((tokens >= 0) & (tokens < 1030)).all())


def test_draws_are_distributed_as_the_softmax_under_mask_and_top_p() -> None:
    check_distribution(sampling.sample, 100)


def test_stages_that_nobody_asks_for_are_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("launched")

    monkeypatch.setattr(sampling, "edit", refuse)
    monkeypatch.setattr(sampling, "cut", refuse)
    plain = SamplingBatch(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert sampling.sample(torch.eye(2, 40), plain).tokens.tolist() == [0, 1]
    with pytest.raises(AssertionError, match="launched"):
        sampling.sample(torch.eye(2, 40), dataclasses.replace(plain, top_p=torch.ones(2)))
