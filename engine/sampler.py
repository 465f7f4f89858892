"""From rows of logits to one token each. Every row is a function of its own inputs only, so a draw never depends on the
batch.

    bias, penalties -> bans (min_tokens, ignore_eos) -> token mask -> [log-probabilities] -> temperature, top_k, top_p,
    min_p -> draw

The mask always wins: where bans would leave none of the tokens it allows, the bans give way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.logits import apply_bans, apply_bias, apply_masks, apply_penalties
from engine.request import SamplingParams, TokenLogprob
from kernels import kernels_for
from kernels.noise import noise_key

GREEDY_BELOW = 1e-5
"""A smaller temperature is greedy: dividing by it would leave float32."""
FIRST_CANDIDATES = 512
"""top_p looks at so many of the best tokens before it sorts a whole vocabulary."""


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """What decides one token beside its logits.

    seed: any integer; position: index of the token in the sequence (tokens before it). n_output: tokens generated
    before it. prompt_ids, output_ids: read only where penalties are set. end_ids: the model's end tokens. mask: packed
    int32 [ceil(vocab / 32)] of a constraint, or None.
    """

    params: SamplingParams
    seed: int
    position: int
    n_output: int
    prompt_ids: Sequence[int] = ()
    output_ids: Sequence[int] = ()
    end_ids: tuple[int, ...] = ()
    mask: torch.Tensor | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the largest logit is taken."""
        return self.params.temperature < GREEDY_BELOW

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Tokens that may not come yet: end and stop tokens below min_tokens; end tokens under ignore_eos."""
        if self.n_output < self.params.min_tokens:
            return self.end_ids + self.params.stop_token_ids
        return self.end_ids if self.params.ignore_eos else ()


@dataclass(frozen=True, slots=True)
class SampledToken:
    """token_id is -1 where the mask allows nothing. is_only_choice: the mask allows exactly this token."""

    token_id: int
    logprob: TokenLogprob | None = None
    is_only_choice: bool = False


def check_token_ids(params: SamplingParams, vocab_size: int) -> None:
    """Raise ValueError where params name a token that the model does not have: to be called at admission."""
    for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        unknown = [token for token in ids if not 0 <= token < vocab_size]
        if unknown:
            raise ValueError(f"{name} names token {unknown[0]}: this model has tokens 0 to {vocab_size - 1}")


@dataclass(frozen=True, slots=True)
class Draws:
    """Tokens that were drawn, and perhaps not computed yet: `read` waits for the device.

    tokens: int64 [rows] on the device of the logits; where a mask allows nothing, any.
    """

    tokens: torch.Tensor
    _rows: Sequence[SamplingRow]
    _logits: torch.Tensor
    _choices: dict[int, int]  # by row with a mask: how many tokens it allows

    @torch.inference_mode()
    def read(self) -> list[SampledToken]:
        """The tokens, with the log-probabilities of the rows that ask."""
        tokens, choices = self.tokens.tolist(), self._choices
        logprobs = _logprobs(self._logits, self._rows, tokens)
        return [
            SampledToken(token if choices.get(i) != 0 else -1, logprobs.get(i), choices.get(i) == 1)
            for i, token in enumerate(tokens)
        ]


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
    """One token per row of float32 logits [rows, vocab], see `draw`."""
    return draw(logits, rows).read()


@torch.inference_mode()
def draw(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> Draws:
    """One token per row of float32 logits [rows, vocab]; the logits are changed in place, and needed until the draws
    are read.

    Raises ValueError where the numbers of rows differ.
    """
    if len(rows) != logits.shape[0]:
        raise ValueError(f"{logits.shape[0]} rows of logits for {len(rows)} rows of parameters")
    apply_bias(logits, {i: row.params.logit_bias for i, row in enumerate(rows) if row.params.logit_bias})
    for i, row in enumerate(rows):
        if row.params.has_penalties:
            apply_penalties(logits[i], row.params, row.prompt_ids, row.output_ids)
    choices = apply_masks(logits, {i: row.mask for i, row in enumerate(rows) if row.mask is not None})
    for i, row in enumerate(rows):
        if banned := row.banned_ids:
            apply_bans(logits[i], banned)
    return Draws(_choose(logits, rows), rows, logits, choices)


def _choose(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """Tokens int64 [rows]: the largest logit of greedy rows, a draw of the others."""
    drawn = [i for i, row in enumerate(rows) if not row.is_greedy]
    if not drawn:
        return logits.argmax(-1)
    every = len(drawn) == len(rows)
    subset, params = (logits if every else logits[drawn]), [rows[i].params for i in drawn]
    device = logits.device
    temperatures = torch.tensor([p.temperature for p in params], device=device)
    keys = torch.tensor([noise_key(rows[i].seed, rows[i].position) for i in drawn], device=device)
    picked = kernels_for(device).sample(subset, None, temperatures, cut_off(subset, params), keys)
    if every:
        return picked
    tokens = logits.argmax(-1)
    tokens[drawn] = picked
    return tokens


def cut_off(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """The smallest logit that top_k, top_p and min_p leave, float32 [rows]; -inf where none is set.

    top_p acts on what top_k left, min_p on the ratio to the best token, all after temperature. Tokens with equal logits
    stay or go together, so that no filter depends on the order of a sort.
    """
    keep_from = torch.full((len(params),), float("-inf"), device=logits.device)
    vocab = logits.shape[-1]
    with_min_p = [i for i, p in enumerate(params) if p.min_p > 0.0]
    if with_min_p:
        margins = torch.tensor([params[i].temperature * math.log(params[i].min_p) for i in with_min_p])
        keep_from[with_min_p] = logits[with_min_p].amax(-1) + margins.to(logits.device)
    limited = [i for i, p in enumerate(params) if 0 < p.top_k < vocab or p.top_p < 1.0]
    if limited:
        best = _smallest_of_best(logits[limited], [params[i] for i in limited], FIRST_CANDIDATES)
        keep_from[limited] = torch.maximum(keep_from[limited], best)
    return keep_from


def _smallest_of_best(logits: torch.Tensor, params: Sequence[SamplingParams], n_candidates: int) -> torch.Tensor:
    """The smallest logit that top_k, then top_p leave in each row: [rows, vocab] to [rows]."""
    vocab, device = logits.shape[-1], logits.device
    top_k = torch.tensor([p.top_k if 0 < p.top_k < vocab else vocab for p in params], device=device)
    top_p = torch.tensor([p.top_p for p in params], dtype=torch.float64, device=device)
    largest_k = max((p.top_k for p in params if p.top_k < vocab), default=0)
    has_top_p = any(p.top_p < 1.0 for p in params)
    n_best = min(vocab, max(largest_k, n_candidates if has_top_p else 0))
    best = logits.topk(n_best).values  # [rows, n_best], descending
    kth = best.gather(1, top_k.clamp(max=n_best)[:, None] - 1).masked_fill(top_k[:, None] > n_best, float("-inf"))
    if not has_top_p:
        return kth[:, 0]
    temperatures = torch.tensor([p.temperature for p in params], device=device)[:, None]

    def weights(values: torch.Tensor) -> torch.Tensor:
        return ((values - best[:, :1]) / temperatures).masked_fill(values < kth, float("-inf")).exp()

    # Summed in float64: over a large vocabulary many small shares decide where the nucleus ends.
    reached = weights(best).cumsum(-1, dtype=torch.float64)
    is_inside = reached >= top_p[:, None] * weights(logits).sum(-1, keepdim=True, dtype=torch.float64)
    end = best.gather(1, is_inside.int().argmax(-1, keepdim=True))
    cut = torch.where((top_p[:, None] < 1.0) & is_inside[:, -1:], torch.maximum(end, kth), kth)[:, 0]
    missed = [i for i, p in enumerate(params) if p.top_p < 1.0 and not is_inside[i, -1]] if n_best < vocab else []
    if missed:
        cut[missed] = _smallest_of_best(logits[missed], [params[i] for i in missed], vocab)
    return cut


def _logprobs(logits: torch.Tensor, rows: Sequence[SamplingRow], tokens: Sequence[int]) -> dict[int, TokenLogprob]:
    """By row that asks: the chosen token's log-probability before temperature and filters, and the best tokens."""
    asked = [(i, n) for i, row in enumerate(rows) if (n := row.params.logprobs) is not None]
    found = dict[int, TokenLogprob]()
    for i, n in asked:
        row = logits[i].log_softmax(-1)
        values, ids = row.topk(min(n, row.shape[-1]))
        top = [(t, v) for t, v in zip(ids.tolist(), values.tolist(), strict=True) if v > float("-inf")]
        found[i] = TokenLogprob(tokens[i], float(row[tokens[i]]), tuple(top))
    return found
