"""The probabilities of a draw: against the softmax in float64, and against how often tokens are drawn."""

import math

import pytest
import torch
from hypothesis import given

from kernels import cpu_sampling, cpu_set, reference
from kernels.kernel_set import Kernels
from kernels.sampling_batch import SamplingBatch
from tests.kernels.samples import normal, pack
from tests.kernels.sampling_batches import assert_same_cut, hidden, sampling_steps

Step = tuple[torch.Tensor, SamplingBatch]


def wanted(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Row by row, in float64."""
    rows = []
    for row, keep_from in zip(hidden(logits, batch), reference.cut(hidden(logits, batch), batch), strict=True):
        temperature, wide = float(batch.temperatures[len(rows)]), row.double()
        if bool((row == -math.inf).all()):
            rows.append(torch.zeros_like(wide))
        elif temperature == 0.0:
            rows.append(torch.nn.functional.one_hot(row.argmax(), len(row)).double())
        else:
            kept = wide.masked_fill(row < keep_from, -math.inf)
            rows.append(((kept - kept.max()) / temperature).softmax(-1))
    return torch.stack(rows)


@given(sampling_steps((1, 31, 33, 300)))
def test_a_distribution_is_the_softmax_of_what_may_be_drawn_and_changes_no_logits(step: Step) -> None:
    logits, batch = step
    before, expected = logits.clone(), wanted(logits, batch)
    found = reference.distribution(logits, batch)
    assert torch.equal(logits, before)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)
    assert bool(((found > 0) <= (expected > 0)).all())


@given(sampling_steps((31, 33, 3000)))
def test_the_distribution_on_a_cpu_equals_its_definition(step: Step) -> None:
    logits, batch = step
    kernels: Kernels = cpu_set.build()
    differing: list[int] = []
    if batch.is_cut:
        masked = hidden(logits, batch)
        found_cut = torch.where(batch.temperatures != 0.0, cpu_sampling.cut(masked, batch), -math.inf)
        differing = assert_same_cut(found_cut, masked, batch)
    same = [row for row in range(len(logits)) if row not in differing]
    expected = reference.distribution(logits, batch)
    torch.testing.assert_close(kernels.distribution(logits, batch)[same], expected[same])


@pytest.mark.parametrize("asked", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.05}])
def test_tokens_are_drawn_as_often_as_the_distribution_says(asked: dict[str, float]) -> None:
    """Pearson's chi-square over 20,000 draws under a mask; the bound is the 99.99 % quantile for 9 degrees of freedom
    or fewer."""
    n, vocab = 20_000, 16
    logits = normal(1, vocab, seed=8) * 1.5
    bits = torch.zeros(1, 32, dtype=torch.bool)
    bits[0, [0, 2, 3, 4, 5, 8, 9, 11, 13, 15]] = True
    dtypes = {"top_k": torch.int32}
    columns = {name: torch.full((n,), value, dtype=dtypes.get(name, torch.float32)) for name, value in asked.items()}
    batch = SamplingBatch(
        torch.full((n,), 1.3),
        torch.randint(-(2**62), 2**62, (n,), generator=torch.Generator().manual_seed(1)),
        pack(bits),
        torch.zeros(n, dtype=torch.int32),
        **columns,
    )
    kernels = cpu_set.build()
    expected = n * kernels.distribution(logits.repeat(n, 1), batch)[0]
    counts = torch.bincount(kernels.sample(logits.repeat(n, 1), batch).tokens, minlength=vocab)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert 2 < int(kept.sum()) <= 10
    assert float(((counts - expected)[kept].square() / expected[kept]).sum()) < 33.7
