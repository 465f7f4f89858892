"""What changes single logits before a token is drawn: bias, penalties, and bans of rows without a mask."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from engine.sampling_row import SamplingRow
from kernels.sampling_batch import LARGEST_LOGIT

__all__ = ["EditList"]

LARGEST_BIAS = 2 * LARGEST_LOGIT
"""A logit with more than this ends at ±LARGEST_LOGIT all the same."""


class EditList:
    """Collects the entries of a LogitEdits on the host, row by row; see there for the fields."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._banned_rows: list[int] = []  # the commonest entries by far, so they take a way of their own
        self._banned_tokens: list[int] = []
        self._parts: list[tuple[np.ndarray, ...]] = []

    def __len__(self) -> int:
        return len(self._banned_rows) + sum(len(part[0]) for part in self._parts)

    def add(self, index: int, row: SamplingRow, banned_ids: Sequence[int]) -> None:
        """What row number `index` asks for. banned_ids: ruled out, unless these are all tokens that there are."""
        banned = {token for token in banned_ids if 0 <= token < self._vocab_size}
        if len(banned) == self._vocab_size:
            banned.clear()
        if row.params.logit_bias or row.params.has_penalties:
            self._parts.append(_entries(index, row, banned))
        elif banned:
            self._banned_rows += [index] * len(banned)
            self._banned_tokens += banned

    def fill(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the entries into arrays of their number, named as the fields."""
        n_banned = len(self._banned_rows)
        arrays["rows"][:n_banned], arrays["tokens"][:n_banned] = self._banned_rows, self._banned_tokens
        arrays["bias"][:n_banned], arrays["repetition"][:n_banned], arrays["subtract"][:n_banned] = 0.0, 1.0, np.inf
        first = n_banned
        for part in self._parts:
            end = first + len(part[0])
            for name, values in zip(FIELDS, part, strict=True):
                arrays[name][first:end] = values
            first = end


FIELDS = ("rows", "tokens", "bias", "repetition", "subtract")


def _entries(index: int, row: SamplingRow, banned: set[int]) -> tuple[np.ndarray, ...]:
    """The entries of one row with a bias or penalties, as arrays [n] in the order of the fields.

    repetition_penalty is of every token seen (Keskar et al., 2019). frequency_penalty is subtracted for each time, and
    presence_penalty once, that a token was generated (OpenAI's API reference).
    """
    params = row.params
    has_counts = bool(params.presence_penalty or params.frequency_penalty)
    counts = Counter(row.output_ids) if has_counts else Counter[int]()
    # Tokens with a count come first, then what else was seen, then the others.
    places = dict.fromkeys(counts)
    if params.repetition_penalty != 1.0:
        places |= dict.fromkeys(row.output_ids) | dict.fromkeys(row.prompt_ids)
        n_seen = len(places)
    else:
        n_seen = 0
    places |= dict.fromkeys(params.logit_bias) | dict.fromkeys(banned)
    tokens, n = list(places), len(places)
    bias, repetition, subtract = (np.full(n, value, dtype=np.float32) for value in (0.0, 1.0, 0.0))
    # float32 would turn what is too large for it into infinities, and those into NaNs.
    repetition[:n_seen] = min(max(params.repetition_penalty, 1 / LARGEST_LOGIT), LARGEST_LOGIT)
    if counts:
        penalties = np.array(list(counts.values())) * params.frequency_penalty + params.presence_penalty
        subtract[: len(counts)] = penalties.clip(-LARGEST_LOGIT, LARGEST_LOGIT)
    if params.logit_bias or banned:
        place_of = {token: place for place, token in enumerate(tokens)}
        for token, value in params.logit_bias.items():
            bias[place_of[token]] = min(max(value, -LARGEST_BIAS), LARGEST_BIAS)
        subtract[[place_of[token] for token in banned]] = np.inf
    return np.full(n, index, dtype=np.int32), np.array(tokens, dtype=np.int32), bias, repetition, subtract
