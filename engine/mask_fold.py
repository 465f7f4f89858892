"""Bans of rows that are under a mask: taken out of the packed words, unless nothing would be left."""

from collections.abc import Iterable

import numpy as np

__all__ = ["fold_bans"]


def fold_bans(words: np.ndarray, banned_ids: Iterable[int], vocab_size: int) -> int | None:
    """Clear the bits of banned tokens in words int32 [ceil(vocab / 32)], in place, unless that would clear all.

    Returns how many tokens the mask allowed before, or None where it allowed none of the banned ones, so that nothing
    was to change.
    """
    bits, banned = words.view(np.uint32), set[int]()
    for token in banned_ids:
        if 0 <= token < vocab_size and bits.item(token >> 5) >> (token & 31) & 1:
            banned.add(token)
    if not banned:
        return None
    if vocab_size % 32:
        bits[-1] &= np.uint32((1 << vocab_size % 32) - 1)  # bits beyond the vocabulary say nothing
    n_allowed = int(np.bitwise_count(bits).sum())
    if n_allowed > len(banned):
        for token in banned:
            bits[token // 32] &= np.uint32(~(1 << token % 32) & 0xFFFF_FFFF)
    return n_allowed
