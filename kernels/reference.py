"""The definition of every kernel, in plain torch on any device. Nothing serves with these; tests hold the fast forms to
them.

Pages of one layer are one tensor [page, 2, kv_head, token, head_dim]; index 0 of the second axis is K, 1 is V. Pages of
int8 or float8 have a few rows more behind the tokens, which hold their scales (quantized_pages).
"""

from collections.abc import Callable

import torch

from kernels.batch import RaggedBatch
from kernels.kernel_set import AttentionSpec
from kernels.noise import gumbel
from kernels.quantized_pages import FORMATS, block_size_of, dequantize, quantize, scales_of
from kernels.sampling_batch import LARGEST_LOGIT, LogitEdits, Sampled, SamplingBatch


def embed(tokens: torch.Tensor, drawn: torch.Tensor | None, table: torch.Tensor, scale: float | None) -> torch.Tensor:
    """The embeddings of tokens int64 [n], times scale where there is one: [n, d] of table [vocab, d].

    A token below 0 is not known to the host yet: -1 - i is the i-th of drawn, int64 [m], which are on the device.
    """
    if drawn is not None:
        tokens = torch.where(tokens < 0, drawn[(-1 - tokens).clamp(min=0)], tokens)
    embedded = torch.nn.functional.embedding(tokens, table)
    # Rounded to the weights' dtype first, as these models were trained.
    return embedded if scale is None else embedded * torch.tensor(scale, dtype=table.dtype).item()


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
    n_kv_heads, block_size = pages.shape[2], block_size_of(pages)
    q, k, v = qkv.tensor_split((qkv.shape[1] - 2 * n_kv_heads, qkv.shape[1] - n_kv_heads), dim=1)
    q = rotate(q if q_norm is None else rms_norm(q, q_norm, eps), cos, sin)
    k = rotate(k if k_norm is None else rms_norm(k, k_norm, eps), cos, sin)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            page, offset = divmod(slot, block_size)
            kv = torch.stack((k[token], v[token]))
            if pages.dtype in FORMATS:
                kv, scales = quantize(kv, pages.dtype)
                scales_of(pages, block_size)[page, :, :, offset] = scales
            pages[page, :, :, offset] = kv
    return q


def add_page_sums(sums: torch.Tensor, states: torch.Tensor, segments: torch.Tensor) -> None:
    """Add states to the sums of the pages that their tokens are in, token by token, so that sums do not depend on how a
    prompt was cut.

    sums: float32 [pages, d]. states: [n, d], any float dtype. segments: int32 [s, 4], page, its first token in the
    flat batch, number of tokens, and whether the page begins here, from 0. No page is in two segments. A segment of no
    tokens is skipped.
    """
    for page, first, count, begins in segments.tolist():
        if count and begins:
            sums[page] = 0.0
        for token in range(first, first + count):
            sums[page] += states[token].float()


def carry_page_sums(before: torch.Tensor, sums: torch.Tensor, links: torch.Tensor) -> None:
    """Note for pages what all pages before them hold: before[page] = before[previous] + sums[previous], one link after
    the other.

    before, sums: float32 [pages, d]. links: int32 [l, 2], page and the previous one; -1 as the previous one says that
    the page is a request's first, and as the page, that there is no link.
    """
    for page, previous in links.tolist():
        if page >= 0:
            before[page] = 0.0 if previous < 0 else before[previous] + sums[previous]


def paged_attention(
    q: torch.Tensor,
    pages: torch.Tensor,
    batch: RaggedBatch,
    spec: AttentionSpec,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of every row over its own pages, softmax in float32: q [n, heads, d] to [n, heads, d].

    A query at position i sees keys i - window + 1 … i (all up to i without a window). Query head h reads KV head
    h // (heads / kv_heads): grouped-query attention (Ainslie et al., 2023). With a soft cap c, a score s becomes
    c tanh(s / c) before anything is hidden (Gemma 2; Gemma Team, 2024). ALiBi then takes slope * (i - j) off the score
    of the key at position j (Press et al., 2021). sinks, float32 [heads]: a score that takes part in the softmax and
    has no value (StreamingLLM's sink as a learned number, as in gpt-oss; OpenAI, 2025). A node of a draft tree sees
    all keys before the tree, and of the tree what its word says (see RaggedBatch); windows and ALiBi go by its
    position. Pages may be quantised (quantized_pages).
    """
    out = torch.empty_like(q)
    group = q.shape[1] // pages.shape[2]
    first = 0
    for row, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
        table = list(batch.block_tables[row][: batch.n_pages(row)])
        # [page, 2, kv_head, page * token, d] -> [2, kv_head, page * token, d] -> keys of the row, a copy per query head
        gathered = dequantize(pages[table], batch.block_size)
        keys, values = gathered.permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :context].float()
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        scores = torch.einsum("nhd,hkd->hnk", q[first : first + n].float(), keys) * spec.scale
        if spec.softcap is not None:
            scores = spec.softcap * torch.tanh(scores / spec.softcap)
        position_at, is_hidden = _positions_and_hidden(n, context, batch.trees[row] if batch.trees else (), q.device)
        distance = position_at[context - n :, None] - position_at
        if spec.alibi is not None:
            scores = scores - torch.tensor(spec.alibi, device=q.device)[:, None, None] * distance
        if spec.window is not None:
            is_hidden = is_hidden | (distance >= spec.window)
        scores = scores.masked_fill(is_hidden, float("-inf"))
        if sinks is not None:
            scores = torch.cat((scores, sinks[:, None, None].expand(-1, n, 1)), -1)
        weights = scores.softmax(-1)[..., :context]
        out[first : first + n] = torch.einsum("hnk,hkd->nhd", weights, values).to(q.dtype)
        first += n
    return out


def _positions_and_hidden(
    n: int, context: int, tree: tuple[int, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The position of each key, int64 [context], and which keys the last n of them, as queries, do not see: bool
    [n, context]. The last keys may be nodes of a tree."""
    position_at = torch.arange(context, device=device)
    is_hidden = position_at > position_at[context - n :, None]
    root = context - len(tree)
    for node, word in enumerate(tree):
        position_at[root + node] = root + (word & (1 << 64) - 1).bit_count() - 1
        for other in range(len(tree)):
            is_hidden[n - len(tree) + node, root + other] = not word >> other & 1
    return position_at, is_hidden


def unpack_mask(words: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Packed int32 words [rows, ceil(n/32)] to bool [rows, n_tokens]; token t is bit t % 32 of word t // 32.

    Tokens beyond the words are not allowed (a vocabulary padded in the checkpoint).
    """
    shifts = torch.arange(32, dtype=torch.int32, device=words.device)
    bits = ((words[..., None] >> shifts) & 1).bool().flatten(-2)
    missing = n_tokens - bits.shape[-1]
    return torch.nn.functional.pad(bits, (0, missing)) if missing > 0 else bits[..., :n_tokens]


def edit(logits: torch.Tensor, edits: LogitEdits) -> None:
    """Change single logits of float32 [n, vocab] in place: bias, repetition, subtract; see LogitEdits."""
    rows, tokens = edits.rows.long(), edits.tokens.long()
    values = logits[rows, tokens]
    biased = (values + edits.bias).clamp_(-LARGEST_LOGIT, LARGEST_LOGIT)
    values = torch.where(edits.bias != 0.0, biased, values)
    values = torch.where(values > 0.0, values / edits.repetition, values * edits.repetition)
    logits[rows, tokens] = values - edits.subtract


def cut(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """The smallest logit that top_k, top_p and min_p leave of logits float32 [n, vocab]: float32 [n], -inf where a row
    asks for none of them, or for no noise either.

    top_p acts on what top_k left, min_p on the ratio to the best token, all after temperature (top-p: Holtzman et al.,
    2020; min-p: Nguyen et al., 2024). Tokens with equal logits stay or go together, so that no filter depends on the
    order of a sort. Sums are float64: over a large vocabulary many small shares decide where the nucleus ends.
    """
    vocab = logits.shape[-1]
    is_greedy = batch.temperatures == 0.0
    temperatures = torch.where(is_greedy, 1.0, batch.temperatures)
    ordered = logits.sort(-1, descending=True).values
    best = ordered[:, 0]
    keep_from = torch.full_like(best, float("-inf"))
    if batch.top_k is not None:
        is_limited = (batch.top_k > 0) & (batch.top_k < vocab)
        kth = ordered.gather(1, (batch.top_k.long().clamp(1, vocab) - 1)[:, None])[:, 0]
        keep_from = torch.where(is_limited, kth, keep_from)
    if batch.top_p is not None:
        weights = ((ordered - best[:, None]) / temperatures[:, None]).exp()
        reached = weights.masked_fill(ordered < keep_from[:, None], 0.0).cumsum(-1, dtype=torch.float64)
        is_inside = reached >= batch.top_p[:, None] * reached[:, -1:]
        end = ordered.gather(1, is_inside.int().argmax(-1, keepdim=True))[:, 0]
        keep_from = torch.where(batch.top_p < 1.0, torch.maximum(keep_from, end), keep_from)
    if batch.min_p is not None:
        keep_from = torch.maximum(keep_from, best + temperatures * batch.min_p.log())
    return keep_from.masked_fill(is_greedy, float("-inf"))


def edited_and_masked(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """What a draw and log-probabilities are of: a copy of logits float32 [n, vocab] after edits, -inf where the mask
    allows nothing."""
    logits = logits.clone()
    if batch.edits is not None:
        edit(logits, batch.edits)
    if batch.masks is not None and batch.mask_of is not None:
        allowed = unpack_mask(batch.masks, logits.shape[-1])[batch.mask_of.clamp(min=0).long()]
        logits.masked_fill_(~allowed & (batch.mask_of >= 0)[:, None], float("-inf"))
    return logits


def distribution(
    logits: torch.Tensor, batch: SamplingBatch, find_cut: Callable[[torch.Tensor, SamplingBatch], torch.Tensor] = cut
) -> torch.Tensor:
    """The probability that `sample` draws each token: float32 [n, vocab] of logits [n, vocab], which are left as they
    are. For rows at temperature 0, 1 at the lowest best token; where no logit is left above -inf, zeros.

    find_cut: `cut`, or a faster form of it. This is what devices compute with, for want of a faster one: rows ask for
    it only where drafts are verified by their ratio.
    """
    logits = edited_and_masked(logits, batch)
    is_greedy = (batch.temperatures == 0.0)[:, None]
    best = logits.amax(-1, keepdim=True)
    is_in = logits > float("-inf")
    if batch.is_cut:
        is_in &= logits >= find_cut(logits, batch)[:, None]
    weights = ((logits - best) / torch.where(is_greedy, 1.0, batch.temperatures[:, None])).exp_()
    weights.masked_fill_(~is_in, 0.0)
    is_best = torch.zeros_like(weights).scatter_(1, logits.argmax(-1, keepdim=True), 1.0)
    weights = torch.where(is_greedy, is_best.masked_fill_(~is_in, 0.0), weights)
    # The best token weighs 1, so only where nothing is left is the sum less.
    return weights / weights.sum(-1, keepdim=True).clamp_(min=1.0)


def sample(logits: torch.Tensor, batch: SamplingBatch) -> Sampled:
    """One token per row of logits float32 [n, vocab], which may be overwritten; each row by its own parameters alone.

        edits -> mask -> [log-probabilities] -> temperature, top_k, top_p, min_p -> noise -> the largest

    The draw is the largest logit / temperature + gumbel noise (noise.py) among the tokens that may be drawn; at
    temperature 0, the largest logit. The lowest token id among equals.
    """
    n_tokens, n_allowed = logits.shape[-1], None
    if batch.edits is not None:
        edit(logits, batch.edits)
    if batch.masks is not None and batch.mask_of is not None:
        is_in = unpack_mask(batch.masks, n_tokens)[batch.mask_of.clamp(min=0).long()] | (batch.mask_of < 0)[:, None]
        n_allowed = is_in.sum(-1, dtype=torch.int32)
        logits = logits.masked_fill(~is_in, float("-inf"))
    noise = gumbel(batch.keys[:, None], torch.arange(n_tokens, device=logits.device))
    is_greedy = (batch.temperatures == 0.0)[:, None]
    scores = torch.where(is_greedy, logits, logits / torch.where(is_greedy, 1.0, batch.temperatures[:, None]) + noise)
    if batch.is_cut:
        scores = scores.masked_fill(logits < cut(logits, batch)[:, None], float("-inf"))
    tokens = scores.argmax(-1)
    if batch.logprobs_of is None:
        return Sampled(tokens, n_allowed)
    rows = logits[batch.logprobs_of].log_softmax(-1)
    top = rows.topk(batch.n_top)
    chosen = rows.gather(1, tokens[batch.logprobs_of, None])[:, 0]
    return Sampled(tokens, n_allowed, chosen, top.values, top.indices)
