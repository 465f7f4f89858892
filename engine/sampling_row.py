"""What decides one token beside its logits, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.request import SamplingParams, TokenLogprob

__all__ = ["SampledToken", "SamplingRow", "check_token_ids"]

GREEDY_BELOW = 1e-5
"""A smaller temperature is greedy: dividing by it would leave float32."""


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
    mask: np.ndarray | None = None

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
    """token_id is -1 where the mask allows nothing."""

    token_id: int
    logprob: TokenLogprob | None = None


def check_token_ids(params: SamplingParams, vocab_size: int) -> None:
    """Raise ValueError where params name a token that the model does not have: to be called at admission."""
    for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        unknown = [token for token in ids if not 0 <= token < vocab_size]
        if unknown:
            raise ValueError(f"{name} names token {unknown[0]}: this model has tokens 0 to {vocab_size - 1}")
