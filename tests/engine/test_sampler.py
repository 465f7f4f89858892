"""The sampler against a plain loop over the vocabulary, against the softmax it draws from, and against its own
batch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.request import SamplingParams
from engine.sampler import Sampler
from engine.sampling_row import SampledToken, SamplingRow, check_token_ids
from kernels import Kernels, cpu_sampling, kernels_for
from kernels.sampling_batch import Sampled, SamplingBatch

VOCAB = 40
END, STOP = 3, 5


def pack(allowed: set[int], vocab: int = VOCAB) -> np.ndarray:
    words = [sum(1 << bit for bit in range(32) if 32 * w + bit in allowed) for w in range((vocab + 31) // 32)]
    return np.array(words, dtype=np.uint32).view(np.int32)


def row(
    mask: set[int] | None = None, *, seed: int = 0, position: int = 0, n_output: int = 0,
    prompt: Sequence[int] = (), output: Sequence[int] = (), **params: Any,
) -> SamplingRow:  # fmt: skip
    return SamplingRow(
        params=SamplingParams(**params),
        seed=seed,
        position=position,
        n_output=n_output,
        prompt_ids=prompt,
        output_ids=output,
        end_ids=(END,),
        mask=None if mask is None else pack(mask),
    )


def cut_off(logits: torch.Tensor, params: SamplingParams) -> float:
    """The smallest of the logits [1, vocab] that top_k, top_p and min_p leave."""
    batch = SamplingBatch(
        torch.tensor([params.temperature]),
        torch.zeros(1, dtype=torch.int64),
        top_k=torch.tensor([params.top_k], dtype=torch.int32),
        top_p=torch.tensor([params.top_p]),
        min_p=torch.tensor([params.min_p]),
    )
    return float(cpu_sampling.cut(logits, batch)[0])


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
    """One token for each row of logits [rows, vocab], which are changed in place."""
    sampler = Sampler(kernels_for(logits.device), logits.shape[1], logits.device, len(rows))
    return sampler.prepare(rows).draw(logits).read()


def random_logits(n: int, seed: int = 0, vocab: int = VOCAB) -> torch.Tensor:
    return torch.randn(n, vocab, generator=torch.Generator().manual_seed(seed)) * 2


def plain_logits(logits: list[float], r: SamplingRow, mask: set[int] | None) -> list[float]:
    """Bias, penalties, bans and mask, token by token."""
    p, out = r.params, list(logits)
    for token in range(len(out)):
        out[token] += p.logit_bias.get(token, 0.0)
        if token in r.prompt_ids or token in r.output_ids:
            out[token] = out[token] / p.repetition_penalty if out[token] > 0 else out[token] * p.repetition_penalty
        count = list(r.output_ids).count(token)
        out[token] -= count * p.frequency_penalty + (p.presence_penalty if count else 0.0)
    banned = set[int]()
    if r.n_output < p.min_tokens:
        banned = {END, *p.stop_token_ids}
    elif p.ignore_eos:
        banned = {END}
    allowed = set(range(len(out))) if mask is None else mask
    allowed = allowed - banned or allowed
    return [value if token in allowed else -math.inf for token, value in enumerate(out)]


def plain_survivors(logits: list[float], p: SamplingParams) -> set[int]:
    """Tokens that may be drawn: top_k, then top_p on what is left, then min_p."""
    order = sorted((t for t in range(len(logits)) if logits[t] > -math.inf), key=lambda t: -logits[t])
    if p.top_k:
        order = order[: p.top_k]
    weights = [math.exp((logits[t] - logits[order[0]]) / p.temperature) for t in order]
    total, reached, kept = sum(weights), 0.0, list[int]()
    for token, weight in zip(order, weights, strict=True):
        if reached >= p.top_p * total:
            break
        kept.append(token)
        reached += weight
    return {t for t, w in zip(order, weights, strict=True) if t in kept and w >= p.min_p}


penalties = st.fixed_dictionaries(
    {
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
        "presence_penalty": st.sampled_from([0.0, 0.7, -0.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.4]),
        "logit_bias": st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100), max_size=3),
        "min_tokens": st.integers(0, 4),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([(), (STOP,)]),
    }
)
tokens = st.lists(st.integers(0, VOCAB - 1), max_size=8)
masks = st.none() | st.sets(st.sampled_from([END, STOP, *range(0, VOCAB, 3)]), min_size=1)


@given(penalties, tokens, tokens, masks, st.integers(0, 1000))
def test_greedy_rows_take_the_largest_logit_after_bias_penalties_bans_and_mask(
    params: dict[str, Any], prompt: list[int], output: list[int], mask: set[int] | None, seed: int
) -> None:
    r = row(mask, prompt=prompt, output=output, n_output=len(output), temperature=0.0, logprobs=3, **params)
    logits = random_logits(1, seed)
    expected = plain_logits(logits[0].tolist(), r, mask)
    (result,) = sample(logits.clone(), [r])
    assert expected[result.token_id] == pytest.approx(max(expected), abs=1e-4)
    log_total = math.log(sum(math.exp(value - max(expected)) for value in expected)) + max(expected)
    assert result.logprob is not None
    assert result.logprob.logprob == pytest.approx(expected[result.token_id] - log_total, abs=1e-3)
    best = sorted((value - log_total for value in expected if value > -math.inf), reverse=True)[:3]
    assert [value for _, value in result.logprob.top] == pytest.approx(best, abs=1e-3)


filters = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 2, 7, 100]),
        "top_p": st.sampled_from([1.0, 0.93, 0.51, 0.05]),
        "min_p": st.sampled_from([0.0, 0.021, 0.4, 1.0]),
    }
)


@given(filters, masks, st.integers(0, 1000))
def test_the_cut_leaves_exactly_the_tokens_of_the_definition(
    params: dict[str, Any], mask: set[int] | None, seed: int
) -> None:
    r = row(mask, **params)
    adjusted = plain_logits(random_logits(1, seed)[0].tolist(), r, mask)
    logits = torch.tensor([adjusted])
    kept = (logits[0] >= cut_off(logits, r.params)) & (logits[0] > -math.inf)
    assert set(kept.nonzero().flatten().tolist()) == plain_survivors(adjusted, r.params)
    drawn = {sample(logits.clone(), [replace(r, seed=s)])[0].token_id for s in range(5)}
    assert drawn <= plain_survivors(adjusted, r.params)


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}]
)
def test_draws_are_distributed_as_the_softmax_of_the_survivors(params: dict[str, Any]) -> None:
    """Pearson's chi-square over 20,000 draws; the bound is the 99.99 % quantile for 7 degrees of freedom or fewer."""
    vocab, n = 8, 20_000
    logits = random_logits(1, seed=5, vocab=vocab)
    p = SamplingParams(**params)
    kept = plain_survivors(logits[0].tolist(), p)
    weights = [math.exp(float(logits[0, t]) / p.temperature) if t in kept else 0.0 for t in range(vocab)]
    rows = [SamplingRow(p, seed=i // 100, position=i % 100, n_output=0) for i in range(n)]
    counts = [0] * vocab
    for result in sample(logits.repeat(n, 1), rows):
        counts[result.token_id] += 1
    expected = [n * weight / sum(weights) for weight in weights]
    assert all(counts[t] == 0 for t in range(vocab) if t not in kept)
    assert sum((counts[t] - expected[t]) ** 2 / expected[t] for t in kept) < 29.9


@given(
    st.lists(st.tuples(filters, masks, st.integers(-(2**70), 2**70), st.booleans()), min_size=2, max_size=6), st.data()
)
def test_a_row_gives_the_same_result_alone_and_in_any_batch(rows: list[Any], data: st.DataObject) -> None:
    logits = random_logits(len(rows), seed=9)
    made = [
        row(mask, seed=seed, position=i, n_output=1, logprobs=2, **(f | ({"temperature": 0.0} if greedy else {})))
        for i, (f, mask, seed, greedy) in enumerate(rows)
    ]
    alone = [sample(logits[i : i + 1].clone(), [r])[0] for i, r in enumerate(made)]
    order = data.draw(st.permutations(range(len(rows))))
    batched = sample(logits[order].clone(), [made[i] for i in order])
    assert [alone[i].token_id for i in order] == [result.token_id for result in batched]


def test_seed_and_position_change_the_draw() -> None:
    logits = torch.zeros(1, 1000)
    draws = [
        sample(logits.clone(), [row(seed=seed, position=at)])[0].token_id for seed in range(10) for at in range(10)
    ]
    assert len(set(draws)) > 80


@given(st.sets(st.sampled_from([END, STOP])), st.booleans(), st.floats(-math.inf, math.inf))
def test_nothing_empties_a_mask(mask: set[int], greedy: bool, bias: float) -> None:
    mask = mask or {END}
    r = row(
        mask, logit_bias={END: bias, STOP: bias}, min_tokens=5, ignore_eos=True, stop_token_ids=(STOP,),
        temperature=0.0 if greedy else 1.0, top_k=1,
    )  # fmt: skip
    (result,) = sample(random_logits(1), [r])
    assert result.token_id in mask


def test_bans_end_with_min_tokens_and_take_only_end_tokens_under_ignore_eos() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, END], logits[0, STOP], logits[0, 9] = 3.0, 2.0, 1.0
    cases = [({}, 0, END), ({"min_tokens": 2}, 1, 9), ({"min_tokens": 2}, 2, END), ({"ignore_eos": True}, 5, STOP)]
    for params, n_output, expected in cases:
        r = row(n_output=n_output, temperature=0.0, stop_token_ids=(STOP,), **params)
        assert sample(logits.clone(), [r])[0].token_id == expected


def test_a_mask_that_allows_nothing_gives_no_token_and_leaves_the_others_alone() -> None:
    results = sample(random_logits(3), [row(set(), top_p=0.5), row({7}), row(set(), temperature=0.0)])
    assert [result.token_id for result in results] == [-1, 7, -1]


def test_tokens_beyond_a_mask_are_not_allowed() -> None:
    logits = torch.zeros(1, 70)
    logits[0, 64:] = 9.0
    r = replace(row(temperature=0.0), mask=pack({33}, vocab=64))
    assert sample(logits, [r])[0].token_id == 33


def test_what_no_row_asks_for_is_not_sent_and_greedy_steps_send_nothing() -> None:
    batches = list[SamplingBatch]()

    def spied(logits: torch.Tensor, batch: SamplingBatch) -> Sampled:
        batches.append(batch)
        return kernels.sample(logits, batch)

    kernels = kernels_for(torch.device("cpu"))
    spying: Kernels = replace(kernels, sample=spied)
    sampler = Sampler(spying, VOCAB, torch.device("cpu"), 4)

    def asked(*rows: SamplingRow) -> set[str]:
        results = sampler.prepare(rows).draw(random_logits(len(rows))).read()
        assert len(results) == len(rows)
        batch = batches.pop()
        names = ("masks", "mask_of", "top_k", "top_p", "min_p", "edits", "logprobs_of")
        return {name for name in names if getattr(batch, name) is not None}

    assert asked(row(temperature=0.0), row(temperature=0.0, top_p=0.5, top_k=3)) == set()
    assert asked(row(), row(top_k=VOCAB)) == set()
    assert asked(row(top_k=3), row(min_p=0.1)) == {"top_k", "min_p"}
    assert asked(row(), row({4, 5})) == {"masks", "mask_of"}
    assert asked(row({4, 5}, ignore_eos=True), row(top_p=0.5)) == {"masks", "mask_of", "top_p"}
    assert asked(row(ignore_eos=True), row(logprobs=1)) == {"edits", "logprobs_of"}


def test_draws_that_were_prepared_together_do_not_disturb_each_other() -> None:
    """The next step is prepared while this one is under way."""
    sampler = Sampler(kernels_for(torch.device("cpu")), VOCAB, torch.device("cpu"), 2)
    rows = [
        [row({3 + step, 4 + step}, seed=step, top_p=0.9, logprobs=2), row(seed=step, min_p=0.01)] for step in range(3)
    ]
    logits = [random_logits(2, seed=step) for step in range(3)]
    prepared = [sampler.prepare(each) for each in rows]
    found = [each.draw(logits[step].clone()) for step, each in enumerate(prepared)]
    assert [draws.read() for draws in found] == [sample(logits[step].clone(), each) for step, each in enumerate(rows)]


def test_warming_up_changes_no_draw() -> None:
    sampler = Sampler(kernels_for(torch.device("cpu")), VOCAB, torch.device("cpu"), 2)
    sampler.warm_up()
    logits = random_logits(1)
    assert sampler.prepare([row(seed=3)]).draw(logits.clone()).read() == sample(logits, [row(seed=3)])


def test_another_number_of_rows_than_was_prepared_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of logits for 1 rows"):
        sample(random_logits(2), [row()])


@given(
    st.dictionaries(st.integers(0, VOCAB - 1), st.sampled_from([1e300, -1e300, math.inf, -math.inf, 0.0]), max_size=4)
)
def test_parameters_too_large_for_float32_leave_numbers(bias: dict[int, float]) -> None:
    r = row(
        logit_bias=bias, output=[3, 4], repetition_penalty=1e200, frequency_penalty=1e300, presence_penalty=-1e300,
        temperature=1e300, logprobs=1,
    )  # fmt: skip
    (result,) = sample(random_logits(1), [r])
    assert result.logprob is not None
    assert not math.isnan(result.logprob.logprob)


def test_token_ids_that_the_model_lacks_are_refused_by_name() -> None:
    check_token_ids(SamplingParams(logit_bias={9: 1.0}, stop_token_ids=(0,)), 10)
    with pytest.raises(ValueError, match="logit_bias names token 10"):
        check_token_ids(SamplingParams(logit_bias={10: 1.0}), 10)
    with pytest.raises(ValueError, match="stop_token_ids names token -1"):
        check_token_ids(SamplingParams(stop_token_ids=(-1,)), 10)
