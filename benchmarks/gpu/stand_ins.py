"""What the engine needs beside a model: a tokenizer and a grammar, without a checkpoint and without a library."""

from collections.abc import Sequence

import torch

__all__ = ["ScatteredMatcher", "StandInTokenizer"]

N_ALLOWED = 50
N_MASKS = 64


class StandInTokenizer:
    """As much of engine.tokenizer.Tokenizer as a ModelInstance uses: every token is a letter."""

    eos_token_id: int | None = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def token_bytes(self, token_id: int) -> bytes:
        """One byte."""
        return b"abcdefghijklmnopqrstuvwxyz"[token_id % 26 : token_id % 26 + 1]


class ScatteredMatcher:
    """A constrain.TokenMatcher that allows some N_ALLOWED tokens, others at every position, and never ends."""

    is_complete = False
    is_terminated = False

    def __init__(self, masks: torch.Tensor, first: int) -> None:
        """masks: see masks_over. first: which of them comes first, so that rows of a batch have different ones."""
        self._masks, self._at = masks, first
        self._words = masks.numpy()  # torch takes ten times as long for one number

    @staticmethod
    def masks_over(vocab_size: int, seed: int = 0) -> torch.Tensor:
        """N_MASKS packed masks, int32 [N_MASKS, ceil(vocab / 32)]."""
        generator = torch.Generator().manual_seed(seed)
        allowed = torch.rand(N_MASKS, vocab_size, generator=generator).topk(min(N_ALLOWED, vocab_size // 2)).indices
        bits = torch.zeros(N_MASKS, -(-vocab_size // 32) * 32, dtype=torch.int64).scatter_(1, allowed, 1)
        words = (bits.view(N_MASKS, -1, 32) << torch.arange(32)).sum(-1)
        return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)

    def fill_mask(self, row: torch.Tensor) -> None:
        """See TokenMatcher."""
        row.numpy()[:] = self._words[self._at % len(self._words)]

    def advance(self, token_id: int) -> bool:
        """See TokenMatcher."""
        word = int(self._words[self._at % len(self._words), token_id // 32])
        is_allowed = bool(word >> token_id % 32 & 1)
        self._at += is_allowed
        return is_allowed

    def forced_bytes(self) -> bytes:
        """See TokenMatcher."""
        return b""

    def rollback(self, n: int) -> None:
        """See TokenMatcher."""
        self._at -= n

    def forced(self) -> int | None:
        """See TokenMatcher."""
        return None

    def trial(self, tail: Sequence[int]) -> tuple[torch.Tensor, int]:
        """See TokenMatcher."""
        first, n = self._at, 0
        for token in tail:
            if not self.advance(token):
                break
            n += 1
        self._at = first
        return self._masks[torch.arange(first, first + n + 1) % len(self._masks)], n
