"""What decides the tokens of a step beside its logits, as tensors; and what comes out."""

from dataclasses import dataclass

import torch

__all__ = ["LARGEST_LOGIT", "LogitEdits", "Sampled", "SamplingBatch"]

LARGEST_LOGIT = 1e30
"""A bias ends here, so that an infinite one can neither empty a mask nor make a NaN."""


@dataclass(frozen=True, slots=True)
class LogitEdits:
    """Changes of single logits, before masks: at most one entry for a token of a row. All tensors are [entries].

    rows, tokens: int32. bias: finite, added first, and the sum kept within ±LARGEST_LOGIT where bias is not 0.
    repetition: divides a positive and multiplies a negative logit (1: none; Keskar et al., 2019). subtract: what is
    taken off last (frequency and presence penalties, see OpenAI's API reference); infinity bans the token. bias,
    repetition, subtract: float32.
    """

    rows: torch.Tensor
    tokens: torch.Tensor
    bias: torch.Tensor
    repetition: torch.Tensor
    subtract: torch.Tensor


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Parameters of n rows of logits, on the device of the logits. What no row asks for is None and costs nothing.

    temperatures: float32 [n], 0 takes the largest logit. keys: int64 [n], see noise_key; unread where the temperature
    is 0. masks: packed int32 [m, ceil(vocab / 32)]; token t is bit t % 32 of word t // 32, tokens beyond the words are
    not allowed. mask_of: int32 [n], which mask a row is under, -1 for none. top_k: int32 [n] (0: no limit), top_p:
    float32 [n] (1: no limit), min_p: float32 [n] (0: no limit). logprobs_of: int64 [k], the rows whose
    log-probabilities are wanted; n_top: and of how many of their best tokens, at most the vocabulary.
    """

    temperatures: torch.Tensor
    keys: torch.Tensor
    masks: torch.Tensor | None = None
    mask_of: torch.Tensor | None = None
    top_k: torch.Tensor | None = None
    top_p: torch.Tensor | None = None
    min_p: torch.Tensor | None = None
    edits: LogitEdits | None = None
    logprobs_of: torch.Tensor | None = None
    n_top: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether a row asks for top_k, top_p or min_p."""
        return self.top_k is not None or self.top_p is not None or self.min_p is not None


@dataclass(frozen=True, slots=True)
class Sampled:
    """tokens: int64 [n]; any of the vocabulary where no logit is left above -inf. n_allowed: int32 [n], tokens that the
    row's mask allows (the vocabulary without one), or None without masks.

    logprobs: float32 [k], of the tokens of logprobs_of; top_logprobs float32 and top_tokens int64, both [k, n_top], the
    best first. All are log-probabilities after edits and mask, before temperature, top_k, top_p and min_p. None where
    they were not wanted.
    """

    tokens: torch.Tensor
    n_allowed: torch.Tensor | None = None
    logprobs: torch.Tensor | None = None
    top_logprobs: torch.Tensor | None = None
    top_tokens: torch.Tensor | None = None
