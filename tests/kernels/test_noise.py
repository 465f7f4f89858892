"""Counter-based noise: its hash against SplitMix64 in plain integers, its distribution against Gumbel's."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.noise import GOLDEN, gumbel, mix, noise_key, noise_keys

words = st.integers(0, 2**64 - 1)


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    """The first outputs of SplitMix64 from state 0, as in Vigna's splitmix64.c and the test vectors of its ports."""
    assert mix(GOLDEN) == 0xE220A8397B1DCDAF
    assert mix(2 * GOLDEN) == 0x6E789E6AA1B965F4
    assert mix(3 * GOLDEN) == 0x06C45D188009454F


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**20))
def test_noise_is_the_formula_in_plain_integers(key: int, token: int) -> None:
    hashed = mix(key + GOLDEN * (token + 1))
    v = min(((hashed >> 11) + 0.5) * 2.0**-53, 1.0 - 2.0**-24)
    expected = -math.log(-math.log1p(-v))
    actual = gumbel(torch.tensor(key), torch.tensor([token]))
    assert math.isclose(float(actual), expected, rel_tol=2e-5, abs_tol=2e-5)


@given(st.integers(), st.integers(0, 10**9))
def test_keys_fit_64_bits_and_tell_seeds_and_positions_apart(seed: int, position: int) -> None:
    key = noise_key(seed, position)
    assert -(2**63) <= key < 2**63
    assert key != noise_key(seed + 1, position)
    assert key != noise_key(seed, position + 1)


@given(st.lists(st.tuples(st.integers(), st.integers(0, 10**9)), max_size=40))
def test_many_keys_are_those_of_one_draw_each(draws: list[tuple[int, int]]) -> None:
    keys = noise_keys([seed for seed, _ in draws], [position for _, position in draws])
    assert keys.dtype == np.int64
    assert keys.tolist() == [noise_key(seed, position) for seed, position in draws]


def test_noise_of_a_token_does_not_depend_on_its_place_in_the_tensor() -> None:
    key, ids = torch.tensor([[123456789]]), torch.arange(3000)
    whole = gumbel(key, ids)[0]
    for first, n in ((0, 1), (1, 3), (17, 33), (2900, 100)):
        assert torch.equal(gumbel(key, ids[first : first + n])[0], whole[first : first + n])


def test_noise_is_gumbel_distributed() -> None:
    """Kolmogorov-Smirnov over 200,000 values; 1.95 / sqrt(n) is the 99.9 % quantile."""
    n = 200_000
    values = gumbel(torch.tensor([noise_key(7, i) for i in range(20)])[:, None], torch.arange(n // 20)).flatten()
    assert values.isfinite().all()
    expected = torch.exp(-torch.exp(-values.double().sort().values))
    distance = (expected - torch.arange(1, n + 1) / n).abs().max()
    assert distance < 1.95 / math.sqrt(n)
