"""Token mask, temperature, cut, Gumbel noise and argmax in one pass over the vocabulary. Twin: reference.sample.

    logits [n, vocab]   -- edit: single logits, in place; where a row asks
                        -- cut: keep_from [n]; where a row asks (cut.py)
                        -- best_of_block: the best token of 1024; grid (n, blocks)
                        -- best_of_row: the best of those; grid (n,)

A stage that no row of a step asks for is not launched. Whether rows have masks or cuts is told to the kernels as they
run: there is one compiled form for all steps, and another one for those that want log-probabilities.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

from kernels.cut import cut
from kernels.reference import unpack_mask
from kernels.sampling_batch import LARGEST_LOGIT, LogitEdits, Sampled, SamplingBatch
from kernels.triton_noise import gumbel_noise

LARGEST = tl.constexpr(LARGEST_LOGIT)
MAX_BLOCK = 1024
EDITS_BLOCK = 256


@triton.jit(do_not_specialize=["n_entries"])
def edit_entries(
    logits_ptr, rows_ptr, tokens_ptr, bias_ptr, repetition_ptr, subtract_ptr, vocab, n_entries, BLOCK: tl.constexpr
):  # fmt: skip
    """BLOCK changes of single logits, in place; grid: (blocks,). Twin: reference.edit."""
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = entry < n_entries
    row = tl.load(rows_ptr + entry, mask=is_in, other=0).to(tl.int64)
    at = logits_ptr + row * vocab + tl.load(tokens_ptr + entry, mask=is_in, other=0)
    values = tl.load(at, mask=is_in, other=0.0)
    bias = tl.load(bias_ptr + entry, mask=is_in, other=0.0)
    biased = tl.minimum(tl.maximum(values + bias, -LARGEST), LARGEST)
    values = tl.where(bias != 0.0, biased, values)
    repetition = tl.load(repetition_ptr + entry, mask=is_in, other=1.0)
    values = tl.where(values > 0.0, values / repetition, values * repetition)
    tl.store(at, values - tl.load(subtract_ptr + entry, mask=is_in, other=0.0), mask=is_in)


@triton.jit(do_not_specialize=["n_words", "flags"])
def best_of_block(
    logits_ptr, words_ptr, mask_of_ptr, keep_from_ptr, temperatures_ptr, keys_ptr,
    scores_ptr, tokens_ptr, counts_ptr, chosen_ptr, maxima_ptr, sums_ptr, vocab, n_words, flags,
    HAS_LOGPROBS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of BLOCK logits of one row: the best score, its token, how many tokens are allowed; with HAS_LOGPROBS that
    token's logit, the largest allowed one, and the sum of exponentials over it. grid: (rows, blocks), all outputs of
    that shape. flags: 1 where there are masks, 2 where there is a cut."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, BLOCK)
    token = block * BLOCK + at
    out = row * tl.num_programs(1) + block
    is_in = token < vocab
    mask = tl.load(mask_of_ptr + row, mask=(flags & 1) != 0, other=-1).to(tl.int64)
    n_allowed = tl.minimum(vocab - block * BLOCK, BLOCK)
    if mask >= 0:
        word = tl.load(words_ptr + mask * n_words + token // 32, mask=is_in & (token // 32 < n_words), other=0)
        is_in = is_in & (((word >> (token % 32)) & 1) != 0)
        n_allowed = tl.sum(is_in.to(tl.int32), 0)
    if n_allowed > 0:
        logits = tl.load(logits_ptr + row * vocab + token, mask=is_in, other=float("-inf"))
        if HAS_LOGPROBS:
            largest = tl.max(logits, 0)
            tl.store(maxima_ptr + out, largest)
            # Nothing is taken off where all logits are -inf: that would make a NaN.
            shift = tl.where(largest == float("-inf"), 0.0, largest)
            tl.store(sums_ptr + out, tl.sum(tl.exp(logits - shift), 0))
        temperature = tl.load(temperatures_ptr + row)
        scores = logits
        if temperature != 0.0:
            keep_from = tl.load(keep_from_ptr + row, mask=(flags & 2) != 0, other=float("-inf"))
            scores = logits / temperature + gumbel_noise(tl.load(keys_ptr + row), token.to(tl.int64))
            scores = tl.where(logits >= keep_from, scores, float("-inf"))
        best = tl.argmax(scores, 0)
        tl.store(scores_ptr + out, tl.max(scores, 0))
        tl.store(tokens_ptr + out, tl.minimum(block * BLOCK + best, vocab - 1))
        if HAS_LOGPROBS:
            tl.store(chosen_ptr + out, tl.max(tl.where(at == best, logits, float("-inf")), 0))
    else:
        tl.store(scores_ptr + out, float("-inf"))
        tl.store(tokens_ptr + out, block * BLOCK)
        if HAS_LOGPROBS:
            tl.store(maxima_ptr + out, float("-inf"))
            tl.store(sums_ptr + out, 0.0)
            tl.store(chosen_ptr + out, float("-inf"))
    tl.store(counts_ptr + out, n_allowed)


@triton.jit
def best_of_row(
    scores_ptr, block_tokens_ptr, counts_ptr, chosen_ptr, maxima_ptr, sums_ptr,
    tokens_ptr, n_allowed_ptr, logprobs_ptr, n_blocks,
    HAS_LOGPROBS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """From the blocks of one row to its token, the number of allowed ones, and its log-probability; grid: (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCKS)
    is_in = at < n_blocks
    first = row * n_blocks
    best = tl.argmax(tl.load(scores_ptr + first + at, mask=is_in, other=float("-inf")), 0)
    tl.store(tokens_ptr + row, tl.load(block_tokens_ptr + first + best).to(tl.int64))
    tl.store(n_allowed_ptr + row, tl.sum(tl.load(counts_ptr + first + at, mask=is_in, other=0), 0))
    if HAS_LOGPROBS:
        maxima = tl.load(maxima_ptr + first + at, mask=is_in, other=float("-inf"))
        sums = tl.load(sums_ptr + first + at, mask=is_in, other=0.0)
        largest = tl.max(maxima, 0)
        total = tl.sum(sums * tl.exp(maxima - largest), 0)
        tl.store(logprobs_ptr + row, tl.load(chosen_ptr + first + best) - largest - tl.log(total))


def edit(logits: torch.Tensor, edits: LogitEdits) -> None:
    """See reference.edit; logits contiguous."""
    n = len(edits.rows)
    edit_entries[(triton.cdiv(n, EDITS_BLOCK),)](
        logits, edits.rows, edits.tokens, edits.bias, edits.repetition, edits.subtract, logits.shape[1], n,
        BLOCK=EDITS_BLOCK,
    )  # fmt: skip


def sample(logits: torch.Tensor, batch: SamplingBatch) -> Sampled:
    """See reference.sample. Waits for nothing."""
    n, vocab = logits.shape
    logits, device = logits.contiguous(), logits.device
    if batch.edits is not None:
        edit(logits, batch.edits)
    keep_from = cut(logits, batch) if batch.is_cut else None
    has_logprobs = batch.logprobs_of is not None
    block = min(MAX_BLOCK, max(16, triton.next_power_of_2(vocab)))
    n_blocks = triton.cdiv(vocab, block)
    # Each an allocation of its own: the compiler wants to know that they begin at multiples of 16 bytes.
    floats = [torch.empty(n, n_blocks, dtype=torch.float32, device=device) for _ in range(4 if has_logprobs else 1)]
    scores, chosen, maxima, sums = floats if has_logprobs else floats * 4
    block_tokens, counts = (torch.empty(n, n_blocks, dtype=torch.int32, device=device) for _ in range(2))
    best_of_block[(n, n_blocks)](
        logits, counts if batch.masks is None else batch.masks, counts if batch.mask_of is None else batch.mask_of,
        scores if keep_from is None else keep_from, batch.temperatures, batch.keys,
        scores, block_tokens, counts, chosen, maxima, sums,
        vocab, 0 if batch.masks is None else batch.masks.shape[1],
        (batch.masks is not None) + 2 * (keep_from is not None), HAS_LOGPROBS=has_logprobs, BLOCK=block,
    )  # fmt: skip
    tokens = torch.empty(n, dtype=torch.int64, device=device)
    n_allowed = torch.empty(n, dtype=torch.int32, device=device)
    logprobs = torch.empty(n if has_logprobs else 0, dtype=torch.float32, device=device)
    best_of_row[(n,)](
        scores, block_tokens, counts, chosen, maxima, sums, tokens, n_allowed, logprobs, n_blocks,
        HAS_LOGPROBS=has_logprobs, BLOCKS=triton.next_power_of_2(n_blocks),
    )  # fmt: skip
    allowed = None if batch.masks is None else n_allowed
    if batch.logprobs_of is None:
        return Sampled(tokens, allowed)
    return Sampled(tokens, allowed, logprobs[batch.logprobs_of], *_best(logits, batch, batch.logprobs_of))


def _best(logits: torch.Tensor, batch: SamplingBatch, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and ids of the n_top best tokens of some rows, both [k, n_top]. Few requests want them."""
    if not batch.n_top:
        return torch.empty(len(rows), 0, device=logits.device), rows.new_empty(len(rows), 0)
    chosen = logits[rows]
    if batch.masks is not None and batch.mask_of is not None:
        mask_of = batch.mask_of[rows].long()
        is_in = unpack_mask(batch.masks[mask_of.clamp(min=0)], logits.shape[1]) | (mask_of < 0)[:, None]
        chosen = chosen.masked_fill(~is_in, float("-inf"))
    return chosen.log_softmax(-1).topk(batch.n_top)  # values, indices
