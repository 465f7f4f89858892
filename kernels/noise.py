"""Counter-based Gumbel noise: the noise of a token is a hash of (seed, position, token id), never of a generator's
state.

    key      = mix(mix(seed) + position)
    hash     = mix(key + GOLDEN * (token_id + 1))            all modulo 2^64
    v        = ((hash >> 11) + 0.5) * 2^-53                  in (0, 1), float32: relative precision down to 2^-54
    gumbel   = -log(-log1p(-v))

`mix` is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), so the hash is its stream at index token_id, started
at key. argmax(logits / temperature + gumbel) is an exact draw from the softmax (Gumbel, 1954; Maddison et al., 2014),
and the same one whatever else is in the batch, on whichever device, in whichever order tokens are computed.

-log1p(-v) rather than -log(u): large noise then comes from small v, where float32 is fine-grained, so that rare tokens
keep their share beyond the 2^-24 at which u near 1 would end.
"""

from collections.abc import Sequence

import numpy as np
import torch

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
WORD = 0xFFFF_FFFF_FFFF_FFFF
FEW_KEYS = 16
"""So many keys are found faster one by one than by numpy."""


def as_int64(word: int) -> int:
    """An unsigned 64-bit word as the signed number with the same bits."""
    word &= WORD
    return word - (1 << 64) if word >> 63 else word


def mix(word: int) -> int:
    """SplitMix64's finaliser of one unsigned word."""
    word &= WORD
    word = ((word ^ (word >> 30)) * MIX_1) & WORD
    word = ((word ^ (word >> 27)) * MIX_2) & WORD
    return word ^ (word >> 31)


def noise_key(seed: int, position: int) -> int:
    """The key of one draw, as a signed 64-bit number; position counts the tokens before the one that is drawn."""
    return as_int64(mix(mix(seed) + position))


def noise_keys(seeds: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """noise_key of many draws: int64 [n]."""
    if len(seeds) <= FEW_KEYS:
        return np.array([noise_key(*each) for each in zip(seeds, positions, strict=True)], dtype=np.int64)
    words = _mix_all(np.array([seed & WORD for seed in seeds], dtype=np.uint64))
    keys: np.ndarray = _mix_all(words + np.array(positions, dtype=np.uint64)).view(np.int64)
    return keys


def _mix_all(words: np.ndarray) -> np.ndarray:
    """mix of uint64 words."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(MIX_1)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(MIX_2)
    mixed: np.ndarray = words ^ (words >> np.uint64(31))
    return mixed


def uniform(keys: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """v at indices int64 [..., n] under keys int64 that broadcast with them: float32 of the broadcast shape, more than
    0 and less than 1."""
    words = keys + (indices + 1) * as_int64(GOLDEN)
    _xor_shifted(words, 30).mul_(as_int64(MIX_1))
    _xor_shifted(words, 27).mul_(as_int64(MIX_2))
    _xor_shifted(words, 31)
    v = words.bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1).float().add_(0.5).mul_(2.0**-53)
    # float32 rounds v near 1 up to 1, whose noise would be -inf and could lose even without a rival.
    return v.clamp_(max=1.0 - 2.0**-24)


def gumbel(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Noise of token_ids int64 [..., n] under keys int64 that broadcast with them: float32 of the broadcast shape."""
    return uniform(keys, token_ids).neg_().log1p_().neg_().log_().neg_()


def _xor_shifted(words: torch.Tensor, bits: int) -> torch.Tensor:
    """words ^= words >> bits in place. torch has no unsigned 64-bit shift, and its >> copies the sign: mask it away."""
    return words.bitwise_xor_((words >> bits).bitwise_and_((1 << (64 - bits)) - 1))
