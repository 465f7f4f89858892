"""Logits and sampling parameters of every kind, mixed across rows."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from kernels import reference
from kernels.sampling_batch import LogitEdits, Sampled, SamplingBatch
from tests.kernels.samples import normal, pack

GRID = 64  # logits are multiples of 1 / GRID where rows have ties


@st.composite
def sampling_steps(draw: st.DrawFn, vocabs: tuple[int, ...], max_rows: int = 5) -> tuple[torch.Tensor, SamplingBatch]:
    """(logits float32 [n, vocab], batch): whatever a step can ask for, or leave out."""
    n, vocab = draw(st.integers(1, max_rows)), draw(st.sampled_from(vocabs))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    logits = torch.randn(n, vocab, generator=generator) * draw(st.sampled_from([0.01, 2.0, 30.0]))
    if draw(st.booleans()):
        logits = (logits * GRID).round() / GRID
    if draw(st.booleans()):
        logits[torch.rand(n, vocab, generator=generator) < 0.3] = -math.inf
        logits[:, draw(st.integers(0, vocab - 1))] = 0.5  # something is left, unless a mask rules it out

    def column(values: list[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([draw(st.sampled_from(values)) for _ in range(n)], dtype=dtype)

    batch = SamplingBatch(
        column([0.0, 0.0, 0.3, 1.0, 1.7], torch.float32),
        torch.randint(-(2**62), 2**62, (n,), generator=generator),
    )
    if draw(st.booleans()):
        masks, mask_of = _masks(draw, n, vocab, generator)
        batch = dataclasses.replace(batch, masks=masks, mask_of=mask_of)
    asked: dict[str, tuple[list[Any], torch.dtype]] = {
        "top_k": ([0, 1, 2, 7, vocab - 1, vocab, vocab + 5], torch.int32),
        "top_p": ([1.0, 0.93, 0.51, 0.05], torch.float32),
        "min_p": ([0.0, 0.021, 0.4, 1.0], torch.float32),
    }
    for name, (values, dtype) in asked.items():
        if draw(st.booleans()):
            batch = dataclasses.replace(batch, **{name: column(values, dtype)})
    if draw(st.booleans()):
        batch = dataclasses.replace(batch, edits=_edits(draw, n, vocab, generator))
    if draw(st.booleans()):
        rows = torch.tensor(sorted(draw(st.sets(st.integers(0, n - 1), min_size=1))))
        batch = dataclasses.replace(batch, logprobs_of=rows, n_top=draw(st.integers(0, min(3, vocab))))
    return logits, batch


def _masks(draw: st.DrawFn, n: int, vocab: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed masks and which row is under which; one may allow a single token, or none, or be narrower than the
    vocabulary."""
    n_words = -(-vocab // 32)
    if n_words > 1 and draw(st.booleans()):
        n_words -= 1
    n_masks = draw(st.integers(1, n))
    bits = torch.rand(n_masks, 32 * n_words, generator=generator) < draw(st.sampled_from([0.02, 0.5, 0.98]))
    for mask in bits:
        kind = draw(st.sampled_from(["many", "many", "one", "none", "far"]))
        if kind == "far":  # nothing in the first blocks
            mask[: 32 * n_words // 2] = False
        elif kind != "many":
            mask[:] = False
            mask[min(vocab, 32 * n_words) - 1] = kind == "one"
    mask_of = torch.tensor([draw(st.integers(-1, n_masks - 1)) for _ in range(n)], dtype=torch.int32)
    return pack(bits), mask_of


def _edits(draw: st.DrawFn, n: int, vocab: int, generator: torch.Generator) -> LogitEdits:
    places = torch.randperm(n * vocab, generator=generator)[: draw(st.integers(1, min(300, n * vocab)))]
    count = len(places)

    def values(choices: list[float]) -> torch.Tensor:
        return torch.tensor(choices)[torch.randint(len(choices), (count,), generator=generator)]

    return LogitEdits(
        (places // vocab).int(),
        (places % vocab).int(),
        values([0.0, 0.0, 3.5, -100.0, 3e38, -3e38]),
        values([1.0, 1.3, 0.8]),
        values([0.0, 0.7, -0.5, math.inf]),
    )


def copy_of(batch: SamplingBatch, rows: list[int]) -> SamplingBatch:
    """The parameters of some rows alone, in this order."""

    def pick(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[rows]

    edits = batch.edits
    if edits is not None:
        entries = [
            (row, entry) for row, old in enumerate(rows) for entry in (edits.rows == old).nonzero()[:, 0].tolist()
        ]
        order = [entry for _, entry in entries]
        new_rows = torch.tensor([row for row, _ in entries], dtype=torch.int32)
        parts = (edits.tokens[order], edits.bias[order], edits.repetition[order], edits.subtract[order])
        edits = LogitEdits(new_rows, *parts) if entries else None
    wanted = set() if batch.logprobs_of is None else set(batch.logprobs_of.tolist())
    logprobs_of = torch.tensor([row for row, old in enumerate(rows) if old in wanted], dtype=torch.int64)
    return SamplingBatch(
        batch.temperatures[rows],
        batch.keys[rows],
        batch.masks,
        pick(batch.mask_of),
        pick(batch.top_k),
        pick(batch.top_p),
        pick(batch.min_p),
        edits,
        logprobs_of if len(logprobs_of) else None,
        batch.n_top,
    )


def hidden(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """The logits after edits and masks: what the cut and the log-probabilities are of."""
    logits = logits.clone()
    if batch.edits is not None:
        reference.edit(logits, batch.edits)
    if batch.masks is not None and batch.mask_of is not None:
        allowed = reference.unpack_mask(batch.masks, logits.shape[1])[batch.mask_of.clamp(min=0).long()]
        logits.masked_fill_(~allowed & (batch.mask_of >= 0)[:, None], -math.inf)
    return logits


def assert_same_cut(found: torch.Tensor, logits: torch.Tensor, batch: SamplingBatch) -> list[int]:
    """found: keep_from float32 [n], of hidden logits. It keeps the tokens of the definition; where it keeps others, the
    sum that decided, or the ratio, is within 1e-5 of what was asked. Returns the rows of which it keeps others."""
    expected = reference.cut(logits, batch)
    differing = []
    for row in range(len(logits)):
        kept, wanted = logits[row] >= found[row], logits[row] >= expected[row]
        if torch.equal(kept, wanted):
            continue
        differing.append(row)
        weights = ((logits[row].double() - logits[row].max()) / batch.temperatures[row]).exp()
        assert abs(int(kept.sum()) - int(wanted.sum())) <= 3 * len(kept[kept ^ wanted].unique())
        close = []
        if batch.top_p is not None:
            if batch.top_k is not None and 0 < batch.top_k[row] < logits.shape[1]:
                weights[logits[row] < logits[row].topk(int(batch.top_k[row])).values[-1]] = 0.0
            smaller = weights[kept & wanted].sum() / weights.sum()
            larger = weights[kept | wanted].sum() / weights.sum()
            p = float(batch.top_p[row])
            close.append(min(abs(float(smaller) - p), abs(float(larger) - p)))
        if batch.min_p is not None:
            close += [abs(float(weight) - float(batch.min_p[row])) for weight in weights[kept ^ wanted]]
        assert min(close) < 1e-5, f"row {row} is cut elsewhere: {found[row]} instead of {expected[row]}"
    return differing


def assert_same_sample(found: Sampled, expected: Sampled, batch: SamplingBatch, differing: list[int]) -> None:
    """differing: rows that are cut elsewhere, whose tokens may differ."""
    same = [row for row in range(len(found.tokens)) if row not in differing]
    where_allowed = same
    if expected.n_allowed is not None:
        assert found.n_allowed is not None
        assert found.n_allowed.dtype == torch.int32
        assert found.n_allowed.tolist() == expected.n_allowed.tolist()
        where_allowed = [row for row in same if expected.n_allowed[row] > 0]
    else:
        assert found.n_allowed is None
    assert found.tokens.dtype == torch.int64
    assert found.tokens[where_allowed].tolist() == expected.tokens[where_allowed].tolist()
    if batch.logprobs_of is None:
        assert found.logprobs is None
        return
    for sampled in (found, expected):
        assert sampled.logprobs is not None
        assert sampled.top_logprobs is not None
        assert sampled.top_tokens is not None
    kept = [at for at, row in enumerate(batch.logprobs_of.tolist()) if row in where_allowed]
    torch.testing.assert_close(found.logprobs[kept], expected.logprobs[kept], atol=2e-5, rtol=2e-5, equal_nan=True)
    torch.testing.assert_close(
        found.top_logprobs[kept], expected.top_logprobs[kept], atol=2e-5, rtol=2e-5, equal_nan=True
    )
    is_real = expected.top_logprobs[kept] > -math.inf
    assert torch.equal(found.top_tokens[kept][is_real], expected.top_tokens[kept][is_real])


def check_distribution(sample: Callable[[torch.Tensor, SamplingBatch], Sampled], n: int) -> None:
    """Pearson's chi-square over n draws under a mask and top_p; the bound is the 99.99 % quantile for 6 degrees of
    freedom or fewer."""
    vocab = 16
    logits = normal(1, vocab, seed=4) * 1.5
    bits = torch.zeros(1, 32, dtype=torch.bool)
    bits[0, [0, 2, 3, 5, 8, 9, 13, 15]] = True
    batch = SamplingBatch(
        torch.full((n,), 0.8),
        torch.randint(-(2**62), 2**62, (n,), generator=torch.Generator().manual_seed(2)),
        pack(bits),
        torch.zeros(n, dtype=torch.int32),
        top_p=torch.full((n,), 0.9),
    )
    alone = copy_of(batch, [0])
    masked = hidden(logits, alone)
    kept = masked[0] >= reference.cut(masked, alone)[0]
    assert 2 < int(kept.sum()) < 8
    expected = n * (masked[0] / 0.8).masked_fill(~kept, -math.inf).softmax(0)
    counts = torch.bincount(sample(logits.repeat(n, 1), batch).tokens, minlength=vocab)
    assert counts[~kept].sum() == 0
    assert float(((counts - expected)[kept].square() / expected[kept]).sum()) < 27.9
