"""Where top_k, top_p and min_p cut a row of logits, without a sort and without waiting for the device. Twin:
reference.cut.

Both filters keep the tokens from some logit on: the largest from which on there are still k tokens, or p of the weight.
That logit is searched for by halving what is between two candidates, on the integers in whose order floats lie:

    float       -inf ... -2.0 ... -0.0  0.0 ... 2.0 ... best
    integer     0x807fffff            ...          0x40000000

A pass over the row tries three candidates, so an interval shrinks to a quarter; it ends where at most one token is left
between its ends. Nothing depends on the order of additions but the last bits of a sum: within a lane float32, over
lanes float64.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

from kernels.sampling_batch import SamplingBatch

LOG2_E = tl.constexpr(1.4426950408889634)
MAX_BLOCK = 4096
WARPS = 16


@triton.jit
def image_of(value):
    """The integer of a float: int64, in the same order."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(tl.int64)


@triton.jit
def float_of(image):
    """The float of an integer."""
    bits = image.to(tl.int32)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(tl.float32, bitcast=True)


@triton.jit
def hide_and_find_best(row_ptr, words_ptr, is_masked, vocab, n_words, BLOCK: tl.constexpr):
    """The largest logit of a row, float32; with a mask, among what it allows, and the others become -inf in place."""
    at = tl.arange(0, BLOCK)
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for first in range(0, vocab, BLOCK):
        token = first + at
        is_in = token < vocab
        logits = tl.load(row_ptr + token, mask=is_in, other=float("-inf"))
        if is_masked:
            word = tl.load(words_ptr + token // 32, mask=is_in & (token // 32 < n_words), other=0)
            logits = tl.where(((word >> (token % 32)) & 1) != 0, logits, float("-inf"))
            tl.store(row_ptr + token, logits, mask=is_in)
        largest = tl.maximum(largest, logits)
    if is_masked:
        tl.debug_barrier()  # other threads may read what these wrote
    return tl.max(largest, 0)


@triton.jit
def measure(row_ptr, vocab, low, middle, high, best, rate, WEIGHS: tl.constexpr, BLOCK: tl.constexpr):
    """Of the tokens from each of three logits on: their number, int32, and with WEIGHS their weight
    2^((logit - best) * rate), float64 (else their number again)."""
    at = tl.arange(0, BLOCK)
    n_low = tl.zeros((BLOCK,), tl.int32)
    n_middle = tl.zeros((BLOCK,), tl.int32)
    n_high = tl.zeros((BLOCK,), tl.int32)
    w_low = tl.zeros((BLOCK,), tl.float32)
    w_middle = tl.zeros((BLOCK,), tl.float32)
    w_high = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, vocab, BLOCK):
        token = first + at
        logits = tl.load(row_ptr + token, mask=token < vocab, other=float("-inf"))
        n_low += (logits >= low).to(tl.int32)
        n_middle += (logits >= middle).to(tl.int32)
        n_high += (logits >= high).to(tl.int32)
        if WEIGHS:
            weights = tl.exp2((logits - best) * rate)
            w_low += tl.where(logits >= low, weights, 0.0)
            w_middle += tl.where(logits >= middle, weights, 0.0)
            w_high += tl.where(logits >= high, weights, 0.0)
    count_low, count_middle, count_high = tl.sum(n_low, 0), tl.sum(n_middle, 0), tl.sum(n_high, 0)
    if WEIGHS:
        weight_low = tl.sum(w_low.to(tl.float64), 0)
        weight_middle = tl.sum(w_middle.to(tl.float64), 0)
        weight_high = tl.sum(w_high.to(tl.float64), 0)
    else:
        weight_low, weight_middle = count_low.to(tl.float64), count_middle.to(tl.float64)
        weight_high = count_high.to(tl.float64)
    return count_low, count_middle, count_high, weight_low, weight_middle, weight_high


@triton.jit
def search(row_ptr, vocab, start, best, rate, spread, wanted, WEIGHS: tl.constexpr, BLOCK: tl.constexpr):
    """The largest logit, or one between it and the next smaller token, from which on there are `wanted` tokens or, with
    WEIGHS, `wanted` of the weight; `start` is one from which on there are. spread: how far from the best logit it may
    well be: a few times less and more are tried first."""
    low, high = image_of(start), image_of(best) + 1
    n_low, n_high = vocab + tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    a, b, c = image_of(best - 8.0 * spread), image_of(best - 2.0 * spread), image_of(best - 0.5 * spread)
    a, b, c = tl.maximum(a, low + 1), tl.maximum(b, low + 1), tl.maximum(c, low + 1)
    while (high - low > 1) & (n_low - n_high > 1):
        n_a, n_b, n_c, w_a, w_b, w_c = measure(
            row_ptr, vocab, float_of(a), float_of(b), float_of(c), best, rate, WEIGHS, BLOCK
        )
        holds_a, holds_b, holds_c = w_a >= wanted, w_b >= wanted, w_c >= wanted
        high = tl.where(holds_c, high, tl.where(holds_b, c, tl.where(holds_a, b, a)))
        n_high = tl.where(holds_c, n_high, tl.where(holds_b, n_c, tl.where(holds_a, n_b, n_a)))
        low = tl.where(holds_c, c, tl.where(holds_b, b, tl.where(holds_a, a, low)))
        n_low = tl.where(holds_c, n_c, tl.where(holds_b, n_b, tl.where(holds_a, n_a, n_low)))
        step = (high - low + 3) // 4
        a, b, c = low + step, tl.minimum(low + 2 * step, high), tl.minimum(low + 3 * step, high)
    return float_of(low)


@triton.jit(do_not_specialize=["n_words", "flags"])
def cut_row(
    logits_ptr, words_ptr, mask_of_ptr, temperatures_ptr, top_k_ptr, top_p_ptr, min_p_ptr, keep_from_ptr,
    vocab, n_words, flags, BLOCK: tl.constexpr,
):  # fmt: skip
    """keep_from of one row; grid: (rows,). flags: 1 where there are masks, 2 top_k, 4 top_p, 8 min_p; they are no
    constants, so that one kernel serves all steps. A row that asks for nothing ends at once; the logits of one that
    does become -inf in place where its mask rules them out."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * vocab
    temperature = tl.load(temperatures_ptr + row)
    top_k = tl.load(top_k_ptr + row, mask=(flags & 2) != 0, other=0)
    top_p = tl.load(top_p_ptr + row, mask=(flags & 4) != 0, other=1.0)
    min_p = tl.load(min_p_ptr + row, mask=(flags & 8) != 0, other=0.0)
    has_top_k = (top_k > 0) & (top_k < vocab)
    keep_from = tl.full((), float("-inf"), tl.float32)
    if (temperature != 0.0) & (has_top_k | (top_p < 1.0) | (min_p > 0.0)):
        mask = tl.load(mask_of_ptr + row, mask=(flags & 1) != 0, other=-1).to(tl.int64)
        best = hide_and_find_best(row_ptr, words_ptr + mask * n_words, mask >= 0, vocab, n_words, BLOCK)
        if best > float("-inf"):
            rate = LOG2_E / temperature
            if has_top_k:
                keep_from = search(row_ptr, vocab, keep_from, best, rate, 4.0, top_k.to(tl.float64), False, BLOCK)
            if top_p < 1.0:
                _, _, _, total, _, _ = measure(row_ptr, vocab, keep_from, keep_from, keep_from, best, rate, True, BLOCK)
                # Tokens below this have less than (1 - p) / vocab of the best one's weight, so together less than 1 - p
                # of all weight.
                start = tl.maximum(keep_from, best + temperature * tl.log((1.0 - top_p) / vocab))
                wanted = top_p.to(tl.float64) * total
                keep_from = search(row_ptr, vocab, start, best, rate, temperature, wanted, True, BLOCK)
            if min_p > 0.0:
                keep_from = tl.maximum(keep_from, best + temperature * tl.log(min_p))
    tl.store(keep_from_ptr + row, keep_from)


def cut(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """See reference.cut. logits: contiguous, without the batch's masks, which are applied here in place to the rows
    that ask."""
    n, vocab = logits.shape
    keep_from = torch.empty(n, dtype=torch.float32, device=logits.device)
    parts = (batch.masks, batch.top_k, batch.top_p, batch.min_p)
    unread = keep_from.view(torch.int32)
    cut_row[(n,)](
        logits, unread if batch.masks is None else batch.masks, unread if batch.mask_of is None else batch.mask_of,
        batch.temperatures, unread if batch.top_k is None else batch.top_k,
        keep_from if batch.top_p is None else batch.top_p, keep_from if batch.min_p is None else batch.min_p,
        keep_from, vocab, 0 if batch.masks is None else batch.masks.shape[1],
        sum(1 << bit for bit, part in enumerate(parts) if part is not None),
        BLOCK=min(MAX_BLOCK, max(16, triton.next_power_of_2(vocab))), num_warps=WARPS,
    )  # fmt: skip
    return keep_from
