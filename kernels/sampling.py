"""Token mask, temperature, cut, Gumbel noise and argmax in one pass over the vocabulary. Twin: reference.sample."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton kernels are a language of their own: their arguments have no Python types.

import torch
import triton
import triton.language as tl

from kernels.noise import GOLDEN, MIX_1, MIX_2, as_int64

GOLDEN_SIGNED = tl.constexpr(as_int64(GOLDEN))
MIX_1_SIGNED = tl.constexpr(as_int64(MIX_1))
MIX_2_SIGNED = tl.constexpr(as_int64(MIX_2))


@triton.jit
def gumbel_noise(key, token):
    """noise.gumbel for int64 tokens under one int64 key."""
    word = key + (token + 1) * GOLDEN_SIGNED
    word = (word ^ ((word >> 30) & 0x3FFFFFFFF)) * MIX_1_SIGNED
    word = (word ^ ((word >> 27) & 0x1FFFFFFFFF)) * MIX_2_SIGNED
    word = word ^ ((word >> 31) & 0x1FFFFFFFF)
    v = (((word >> 11) & 0x1FFFFFFFFFFFFF).to(tl.float32) + 0.5) * 1.1102230246251565e-16  # 2^-53
    v = tl.minimum(v, 0.99999994)  # 1 - 2^-24
    # log1p(-v) by way of log alone (Kahan): the rounding of 1 - v cancels in the quotient.
    rest = 1.0 - v
    is_tiny = rest == 1.0
    exponential = tl.where(is_tiny, v, -tl.log(rest) * (v / tl.where(is_tiny, 1.0, 1.0 - rest)))
    return -tl.log(exponential)


@triton.jit
def best_of_block(
    logits_ptr, words_ptr, temperatures_ptr, keep_from_ptr, keys_ptr, scores_ptr, tokens_ptr, vocab, n_words,
    HAS_MASK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The best score, and its token, among BLOCK logits of one row; grid: (rows, blocks), both outputs of that
    shape."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    is_in = token < vocab
    logits = tl.load(logits_ptr + row * vocab + token, mask=is_in, other=float("-inf"))
    is_in = is_in & (logits >= tl.load(keep_from_ptr + row))
    if HAS_MASK:
        has_word = token // 32 < n_words
        word = tl.load(words_ptr + row * n_words + token // 32, mask=has_word, other=0)
        is_in = is_in & (((word >> (token % 32)) & 1) != 0)
    temperature = tl.load(temperatures_ptr + row)
    scores = logits
    if temperature != 0.0:
        scores = logits / temperature + gumbel_noise(tl.load(keys_ptr + row), token.to(tl.int64))
    scores = tl.where(is_in, scores, float("-inf"))
    out = row * tl.num_programs(1) + block
    tl.store(scores_ptr + out, tl.max(scores, 0))
    tl.store(tokens_ptr + out, block * BLOCK + tl.argmax(scores, 0))


def sample(
    logits: torch.Tensor,
    words: torch.Tensor | None,
    temperatures: torch.Tensor,
    keep_from: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """See reference.sample."""
    rows, vocab = logits.shape
    block = min(1024, max(16, triton.next_power_of_2(vocab)))
    n_blocks = triton.cdiv(vocab, block)
    scores = torch.empty(rows, n_blocks, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, n_blocks, dtype=torch.int32, device=logits.device)
    best_of_block[(rows, n_blocks)](
        logits.contiguous(), logits if words is None else words.contiguous(), temperatures, keep_from, keys,
        scores, tokens, vocab, 0 if words is None else words.shape[1],
        HAS_MASK=words is not None, BLOCK=block,
    )  # fmt: skip
    # A second pass over a few hundred scores a row; torch takes the first of equals, as within a block.
    return tokens.gather(1, scores.argmax(-1, keepdim=True))[:, 0].long()
