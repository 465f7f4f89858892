"""The definition of every kernel, in plain torch on any device. Nothing serves with these; tests hold the fast forms to
them.

Pages of one layer are one tensor [page, 2, kv_head, token, head_dim]; index 0 of the second axis is K, 1 is V.
"""

import torch

from kernels.batch import RaggedBatch
from kernels.noise import gumbel


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square norm over the last axis (Zhang and Sennrich, 2019), computed in float32; x [..., d], weight
    [d]."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(rms_norm(x + residual), x + residual): the seam between two blocks of a decoder layer; x and residual [n, d]."""
    total = x + residual
    return rms_norm(total, weight, eps), total


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, of gate and up side by side (SwiGLU; Shazeer, 2020): [n, 2 d] to [n, d]."""
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def gelu_tanh_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up in the tanh form of GELU (Hendrycks and Gimpel, 2016; GEGLU: Shazeer, 2020): [n, 2 d] to
    [n, d]."""
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.gelu(gate, approximate="tanh") * up


def rotary_tables(positions: torch.Tensor, inv_freq: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and signed sin of the rotary embedding (Su et al., 2021): positions int [n], inv_freq [d/2] to two float32
    [n, d].

    The first half of sin is negative, so that rotation in the half-split layout is x * cos + roll(x, d/2) * sin.
    """
    angles = positions[:, None].float() * torch.cat((-inv_freq, inv_freq))
    return angles.cos() * factor, angles.sin() * factor


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate x [n, heads, d] by the tables of its n positions, in float32."""
    rolled = x.roll(x.shape[-1] // 2, -1)
    return torch.addcmul(x * cos[:, None], rolled, sin[:, None]).to(x.dtype)


def rope_and_cache(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pages: torch.Tensor,
    slots: torch.Tensor,
    q_norm: torch.Tensor | None,
    k_norm: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """Norm q and k where weights [d] are given, rotate both, write K and V into the pages; returns q [n, heads, d].

    qkv: [n, heads + 2 kv_heads, d]; slots: int64 [n], page * block_size + offset of each token, -1 writes nothing.
    """
    n_kv_heads, block_size = pages.shape[2], pages.shape[3]
    q, k, v = qkv.tensor_split((qkv.shape[1] - 2 * n_kv_heads, qkv.shape[1] - n_kv_heads), dim=1)
    q = rotate(q if q_norm is None else rms_norm(q, q_norm, eps), cos, sin)
    k = rotate(k if k_norm is None else rms_norm(k, k_norm, eps), cos, sin)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            page, offset = divmod(slot, block_size)
            pages[page, 0, :, offset] = k[token]
            pages[page, 1, :, offset] = v[token]
    return q


def paged_attention(
    q: torch.Tensor,
    pages: torch.Tensor,
    batch: RaggedBatch,
    scale: float,
    window: int | None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Causal attention of every row over its own pages, softmax in float32: q [n, heads, d] to [n, heads, d].

    A query at position i sees keys i - window + 1 … i (all up to i without a window). Query head h reads KV head
    h // (heads / kv_heads): grouped-query attention (Ainslie et al., 2023). With a soft cap c, a score s becomes
    c tanh(s / c) before anything is hidden (Gemma 2; Gemma Team, 2024).
    """
    out = torch.empty_like(q)
    group = q.shape[1] // pages.shape[2]
    first = 0
    for row, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
        table = list(batch.block_tables[row][: batch.n_pages(row)])
        # [page, 2, kv_head, token, d] -> [2, kv_head, page * token, d] -> the keys of this row, one copy per query head
        keys, values = pages[table].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :context].float()
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        scores = torch.einsum("nhd,hkd->hnk", q[first : first + n].float(), keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        query_at = torch.arange(context - n, context, device=q.device)[:, None]
        key_at = torch.arange(context, device=q.device)
        is_hidden = key_at > query_at
        if window is not None:
            is_hidden |= key_at <= query_at - window
        weights = scores.masked_fill(is_hidden, float("-inf")).softmax(-1)
        out[first : first + n] = torch.einsum("hnk,hkd->nhd", weights, values).to(q.dtype)
        first += n
    return out


def unpack_mask(words: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Packed int32 words [rows, ceil(n/32)] to bool [rows, n_tokens]; token t is bit t % 32 of word t // 32.

    Tokens beyond the words are not allowed (a vocabulary padded in the checkpoint).
    """
    shifts = torch.arange(32, dtype=torch.int32, device=words.device)
    bits = ((words[..., None] >> shifts) & 1).bool().flatten(-2)
    missing = n_tokens - bits.shape[-1]
    return torch.nn.functional.pad(bits, (0, missing)) if missing > 0 else bits[..., :n_tokens]


def sample(
    logits: torch.Tensor,
    words: torch.Tensor | None,
    temperatures: torch.Tensor,
    keep_from: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """One token per row: the largest logits / temperature + gumbel noise (noise.py) among the tokens that may be drawn.

    logits: float32 [rows, n]. words: packed mask int32 [rows, ceil(n/32)], or None. temperatures: float32 [rows], 0
    takes the largest logit as it is. keep_from: float32 [rows], smaller logits are out (the cut of top-k, top-p and
    min-p; -inf is none). keys: int64 [rows], see noise_key. Returns int64 [rows], the lowest token id among equals.
    """
    n_tokens = logits.shape[-1]
    noise = gumbel(keys[:, None], torch.arange(n_tokens, device=logits.device))
    is_greedy = temperatures == 0.0
    scaled = logits / torch.where(is_greedy, 1.0, temperatures)[:, None] + noise
    scores = torch.where(is_greedy[:, None], logits, scaled)
    is_out = logits < keep_from[:, None]
    if words is not None:
        is_out |= ~unpack_mask(words, n_tokens)
    return scores.masked_fill(is_out, float("-inf")).argmax(-1)


def accept_chain(drafted: torch.Tensor, sampled: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """How many tokens of each draft are accepted: the longest beginning in which the target would have drawn the same.

    A row with k drafted tokens has k + 1 positions in the flat arrays, from starts[row] to starts[row + 1]. drafted:
    int64 [positions], the draft's tokens, the last position of a row unused; sampled: int64 [positions], what the
    target draws after the committed tokens and after each drafted one; starts: int64 [rows + 1]. Returns int64 [rows],
    0 to k; the request then goes on with sampled[starts[row] + accepted]. With the same noise for draft and target this
    is exact at any temperature (Daliri, Musco and Suresh, 2024: drafter-invariant coupling).
    """
    accepted = torch.zeros(len(starts) - 1, dtype=torch.int64, device=drafted.device)
    for row in range(len(starts) - 1):
        first, last = int(starts[row]), int(starts[row + 1]) - 1
        while first + int(accepted[row]) < last:
            at = first + int(accepted[row])
            if drafted[at] != sampled[at]:
                break
            accepted[row] += 1
    return accepted
