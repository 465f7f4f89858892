"""Sampling on a CPU: noise only for tokens that may be drawn, no sort of a whole vocabulary. Twin: reference.sample."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from kernels.noise import gumbel
from kernels.sampling_batch import LARGEST_LOGIT, LogitEdits, Sampled, SamplingBatch

__all__ = ["cut", "sample"]

DENSE_ELEMENTS = 32_768
"""Logits that sampling handles at once."""
SPARSE_BELOW = 8
"""Sampling gathers the tokens that may be drawn where they are fewer than one in so many."""
FIRST_CANDIDATES = 512
"""top_p looks at so many of the best tokens before it sorts more of a vocabulary."""
MaskLogits = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits [n, vocab], changed in place, masks and mask_of to n_allowed; see SamplingBatch and Sampled."""


def sample(logits: torch.Tensor, batch: SamplingBatch, mask_logits: MaskLogits | None = None) -> Sampled:
    """See reference.sample. mask_logits: rules out what masks do not allow, of contiguous rows, faster than numpy."""
    if batch.edits is not None:
        _edit(logits, batch.edits)
    n_allowed = None
    if batch.masks is not None and batch.mask_of is not None:
        apply = mask_logits if mask_logits is not None and logits.is_contiguous() else _mask_logits
        n_allowed = apply(logits, batch.masks, batch.mask_of)
    tokens = _choose(logits, batch)
    if batch.logprobs_of is None:
        return Sampled(tokens, n_allowed)
    return Sampled(tokens, n_allowed, *_logprobs(logits, tokens, batch.logprobs_of, batch.n_top))


def _edit(logits: torch.Tensor, edits: LogitEdits) -> None:
    """See reference.edit. numpy: for so few numbers a call of torch costs several times as much."""
    array, at = logits.numpy(), (edits.rows.numpy(), edits.tokens.numpy())
    subtract = edits.subtract.numpy()
    if subtract.min() == np.inf:  # mere bans
        array[at] = -np.inf
        return
    bias, repetition, values = edits.bias.numpy(), edits.repetition.numpy(), array[at]
    if bias.any():
        biased = np.clip(values + bias, -LARGEST_LOGIT, LARGEST_LOGIT)
        values = np.where(bias != 0.0, biased, values)
    with np.errstate(over="ignore"):  # both branches are computed for all
        values = np.where(values > 0.0, values / repetition, values * repetition)
    array[at] = values - subtract


def _mask_logits(logits: torch.Tensor, masks: torch.Tensor, mask_of: torch.Tensor) -> torch.Tensor:
    """Rule out in place what masks do not allow; returns how many tokens each row may take, int32 [n]."""
    array, masks_of = logits.numpy(), mask_of.tolist()
    bits = np.unpackbits(masks.numpy().view(np.uint8), axis=-1, bitorder="little", count=array.shape[1])
    # Row by row, counting true values takes a sixth of the time of a sum.
    counts = [np.count_nonzero(allowed) for allowed in bits.view(np.bool_)]
    # The lesser of a logit and ±inf: choosing element by element takes ten times as long.
    bounds = bits.astype(np.float32)
    bounds -= 0.5
    bounds *= np.inf
    if masks_of == list(range(len(counts))):
        np.minimum(array, bounds, out=array)
        return torch.from_numpy(np.array(counts, dtype=np.int32))
    for row, mask in enumerate(masks_of):
        if mask >= 0:
            np.minimum(array[row], bounds[mask], out=array[row])
    n_allowed = [counts[mask] if mask >= 0 else array.shape[1] for mask in masks_of]
    return torch.from_numpy(np.array(n_allowed, dtype=np.int32))


def _logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, rows: torch.Tensor, n_top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of some rows, the log-probabilities of their tokens, and the best ones with their ids; see Sampled."""
    if len(rows) < len(logits):
        logits, tokens = logits[rows], tokens[rows]
    if logits.numel() > DENSE_ELEMENTS and len(logits) > 1:  # a row at a time stays in the cache
        every = torch.zeros(1, dtype=torch.int64)
        parts = [_logprobs(logits[i : i + 1], tokens[i : i + 1], every, n_top) for i in range(len(logits))]
        chosen, values, ids = (torch.cat(part) for part in zip(*parts, strict=True))
        return chosen, values, ids
    wide = logits.log_softmax(-1)
    top = wide.topk(n_top)
    chosen = wide.numpy()[np.arange(len(wide)), tokens.numpy()]
    return torch.from_numpy(chosen), top.values, top.indices


def _largest(logits: torch.Tensor) -> torch.Tensor:
    """argmax(-1), of which numpy takes the fifteenth part of torch's time."""
    return torch.from_numpy(logits.numpy().argmax(-1))


def _choose(logits: torch.Tensor, batch: SamplingBatch) -> torch.Tensor:
    """Tokens int64 [n]: the largest logit of greedy rows, a draw of the others."""
    temperatures = batch.temperatures.numpy()
    if not temperatures.any():
        return _largest(logits)
    if temperatures.all():
        return _draw(logits, batch.temperatures, batch.keys, cut(logits, batch).numpy() if batch.is_cut else None)
    rows = torch.from_numpy(temperatures.nonzero()[0])
    part = SamplingBatch(
        batch.temperatures[rows],
        batch.keys[rows],
        top_k=None if batch.top_k is None else batch.top_k[rows],
        top_p=None if batch.top_p is None else batch.top_p[rows],
        min_p=None if batch.min_p is None else batch.min_p[rows],
    )
    tokens = _largest(logits)
    tokens[rows] = _choose(logits[rows], part)
    return tokens


def _draw(
    logits: torch.Tensor, temperatures: torch.Tensor, keys: torch.Tensor, keep_from: np.ndarray | None
) -> torch.Tensor:
    """Tokens int64 [n] of rows whose temperature is above 0. keep_from: float32 [n], smaller logits are out."""
    array = logits.numpy()
    is_in = array > -np.inf
    if keep_from is not None:
        is_in &= array >= keep_from[:, None]
    if np.count_nonzero(is_in) * SPARSE_BELOW > is_in.size:
        bounds = None if keep_from is None else torch.from_numpy(keep_from)[:, None]
        return _draw_dense(logits, temperatures[:, None], keys[:, None], bounds)
    flat = np.flatnonzero(is_in)
    row_of, token_ids = np.divmod(flat, array.shape[1])
    rows = torch.from_numpy(row_of)
    scores = torch.from_numpy(array.reshape(-1)[flat]) / temperatures[rows]
    scores += gumbel(keys[rows], torch.from_numpy(token_ids))
    tokens, found = np.zeros(len(array), dtype=np.int64), scores.numpy()
    ends = row_of.searchsorted(np.arange(len(array) + 1)).tolist()
    for row, (first, end) in enumerate(pairwise(ends)):
        if first < end:
            tokens[row] = token_ids[first + found[first:end].argmax()]
    return torch.from_numpy(tokens)


def _draw_dense(
    logits: torch.Tensor, temperatures: torch.Tensor, keys: torch.Tensor, keep_from: torch.Tensor | None
) -> torch.Tensor:
    """The draw over slices of the vocabulary: temporaries that fit the L2 cache, and that malloc keeps, save 60 %."""
    n_rows, vocab = logits.shape
    width = max(1024, DENSE_ELEMENTS // n_rows)
    best = np.full(n_rows, -np.inf, dtype=np.float32)
    tokens = np.zeros(n_rows, dtype=np.int64)
    every = np.arange(n_rows)
    for first in range(0, vocab, width):
        part = logits[:, first : first + width]
        scores = (part / temperatures).add_(gumbel(keys, torch.arange(first, first + part.shape[1])))
        if keep_from is not None:
            scores.masked_fill_(part < keep_from, float("-inf"))
        found = scores.numpy()
        at = found.argmax(-1)
        values = found[every, at]
        is_better = values > best
        best = np.where(is_better, values, best)
        tokens = np.where(is_better, at + first, tokens)
    return torch.from_numpy(tokens)


def cut(logits: torch.Tensor, batch: SamplingBatch, n_candidates: int = FIRST_CANDIDATES) -> torch.Tensor:
    """See reference.cut; of rows whose temperature is above 0."""
    n, vocab = logits.shape
    keep_from = np.full(n, -np.inf, dtype=np.float32)
    if batch.min_p is not None:
        asking = batch.min_p.numpy().nonzero()[0]
        margins = batch.temperatures.numpy()[asking] * np.log(batch.min_p.numpy()[asking])
        keep_from[asking] = _only(logits, asking).amax(-1).numpy() + margins
    top_k = np.full(n, vocab) if batch.top_k is None else batch.top_k.numpy().astype(np.int64)
    top_k[(top_k <= 0) | (top_k > vocab)] = vocab
    top_p = np.ones(n, dtype=np.float32) if batch.top_p is None else batch.top_p.numpy()
    limited = ((top_k < vocab) | (top_p < 1.0)).nonzero()[0]
    if len(limited):
        temperatures = batch.temperatures.numpy()[limited]
        best = _smallest_of_best(_only(logits, limited), temperatures, top_k[limited], top_p[limited], n_candidates)
        keep_from[limited] = np.maximum(keep_from[limited], best)
    return torch.from_numpy(keep_from)


def _only(logits: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Some rows of logits, not copied where these are all."""
    return logits if len(rows) == len(logits) else logits[torch.from_numpy(rows)]


def _smallest_of_best(
    logits: torch.Tensor, temperatures: np.ndarray, top_k: np.ndarray, top_p: np.ndarray, n_candidates: int
) -> np.ndarray:
    """The smallest logit that top_k, then top_p leave in each row: [n, vocab] to [n]. top_k: int64 [n], the vocabulary
    where there is no limit."""
    n, vocab = logits.shape
    has_top_p = bool(top_p.min() < 1.0)
    largest_k = int(top_k.max(where=top_k < vocab, initial=0))
    has_top_k = largest_k > 0
    n_best = min(vocab, max(largest_k, n_candidates if has_top_p else 0))
    best = logits.topk(n_best).values  # [n, n_best], descending
    kth = best.numpy()[np.arange(n), np.minimum(top_k, n_best) - 1]
    kth = np.where(top_k > n_best, np.float32(-np.inf), kth)
    if not has_top_p:
        return kth
    divisors, smallest = torch.from_numpy(temperatures)[:, None], torch.from_numpy(kth)[:, None]

    def weights(values: torch.Tensor) -> torch.Tensor:
        scaled = (values - best[:, :1]).div_(divisors)
        if has_top_k:
            scaled.masked_fill_(values < smallest, float("-inf"))
        return scaled.exp_()

    # Summed in float64: over a large vocabulary many small shares decide where the nucleus ends.
    reached = weights(best).cumsum(-1, dtype=torch.float64).numpy()
    total = weights(logits).sum(-1, keepdim=True, dtype=torch.float64).numpy()
    is_inside = reached >= top_p[:, None] * total
    end = best.numpy()[np.arange(n), is_inside.argmax(-1)]
    is_found = is_inside[:, -1]
    found = np.where((top_p < 1.0) & is_found, np.maximum(end, kth), kth)
    missed = ((top_p < 1.0) & ~is_found).nonzero()[0]
    if len(missed) and n_best < vocab:
        found[missed] = _smallest_of_best(
            _only(logits, missed), temperatures[missed], top_k[missed], top_p[missed], n_candidates * 8
        )
    return found
