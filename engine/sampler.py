"""From rows of logits to one token each. Every row is a function of its own inputs only, so a draw never depends on the
batch.

    bias, penalties -> bans (min_tokens, ignore_eos) -> token mask -> [log-probabilities] -> temperature, top_k, top_p,
    min_p -> draw

The mask always wins: where bans would leave none of the tokens it allows, the bans give way.
"""

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


@torch.inference_mode()
def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
    """One token per row of float32 logits [rows, vocab]; the logits are changed in place.

    Raises ValueError where the numbers of rows differ.
    """
    if len(rows) != logits.shape[0]:
        raise ValueError(f"{logits.shape[0]} rows of logits for {len(rows)} rows of parameters")
    if not rows:
        return []
    apply_bias(logits, {i: row.params.logit_bias for i, row in enumerate(rows) if row.params.logit_bias})
    for i, row in enumerate(rows):
        apply_penalties(logits[i], row.params, row.prompt_ids, row.output_ids)
    choices = apply_masks(logits, {i: row.mask for i, row in enumerate(rows) if row.mask is not None})
    for i, row in enumerate(rows):
        apply_bans(logits[i], row.banned_ids)
    tokens = _choose(logits, rows).tolist()
    logprobs = _logprobs(logits, rows, tokens)
    return [
        SampledToken(token if choices.get(i) != 0 else -1, logprobs.get(i), choices.get(i) == 1)
        for i, token in enumerate(tokens)
    ]


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
    for i, p in enumerate(params):
        if p.min_p > 0.0:
            keep_from[i] = logits[i].max() + p.temperature * torch.tensor(p.min_p).log()
        if 0 < p.top_k < logits.shape[-1] or p.top_p < 1.0:
            keep_from[i] = torch.maximum(keep_from[i], _nucleus(logits[i], p))
    return keep_from


def _nucleus(row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The smallest logit of a row [vocab] that top_k, then top_p leave."""
    vocab = row.shape[-1]
    top_k = params.top_k if 0 < params.top_k < vocab else vocab
    n_best = min(vocab, top_k if params.top_p == 1.0 else max(top_k if top_k < vocab else 0, FIRST_CANDIDATES))
    best = row.topk(n_best).values
    kth = best[top_k - 1] if top_k <= n_best else best.new_tensor(float("-inf"))
    if params.top_p == 1.0:
        return kth
    # float64: over a large vocabulary the sum of many small shares decides where the nucleus ends.
    mass = torch.where(row >= kth, (row.double() - best[0]) / params.temperature, float("-inf")).exp().sum()
    while True:
        shares = torch.where(best >= kth, (best.double() - best[0]) / params.temperature, float("-inf")).exp() / mass
        reached = shares.cumsum(0) >= params.top_p
        if bool(reached[-1]):
            return torch.maximum(kth, best[int(reached.int().argmax())])
        if len(best) == vocab:  # top_p close to 1, missed by rounding: everything that top_k left
            return kth
        best = row.sort(descending=True).values


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
