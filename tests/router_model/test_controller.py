from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_model.controller import GAIN, SLACK, ShareController
from router_model.logistic import Floats
from router_model.thresholds import ALWAYS_LARGE, NEVER_LARGE

TRAINING = np.clip(np.random.default_rng(0).normal(0.15, 0.15, 6_000), -1, 1)

Traffic = Callable[[np.random.Generator, int], float]


def decided(share: float, traffic: Traffic, n: int, seed: int = 0) -> Floats:
    """Which of n requests went to the large model."""
    rng = np.random.default_rng(seed)
    controller = ShareController(share, float(np.quantile(TRAINING, 1 - share)), TRAINING)
    went = np.zeros(n)
    for i in range(n):
        rank = traffic(rng, i)
        went[i] = rank >= controller.threshold()
        controller.observe(rank, float(went[i]) - share)
    return went


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0.1, 0.9),
    shift=st.floats(-2, 2),
    scale=st.floats(0.001, 5),
    seed=st.integers(0, 10_000),
)
def test_a_share_is_met_after_500_requests_of_any_shifted_and_scaled_domain_and_stays_met(
    share: float, shift: float, scale: float, seed: int
) -> None:
    went = decided(share, lambda rng, _: shift + scale * float(rng.choice(TRAINING)), 1_500, seed)
    realised = np.cumsum(went) / np.arange(1, 1_501)
    assert np.abs(realised[499:] - share).max() <= 0.05
    for start in range(0, 1_000, 250):
        assert abs(went[start : start + 500].mean() - share) <= 0.05


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 10_000))
def test_in_domain_a_share_is_met_within_2_points(share: float, seed: int) -> None:
    went = decided(share, lambda rng, _: float(rng.choice(TRAINING)), 1_000, seed)
    realised = np.cumsum(went) / np.arange(1, 1_001)
    assert np.abs(realised[499:] - share).max() <= 0.02


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_no_traffic_outruns_it(share: float) -> None:
    """Even an adversary is bounded: the sum of errors never exceeds the slack and one range of the aim."""
    worst: list[Traffic] = [
        lambda _, i: i / 1_500,  # always above all that was seen
        lambda _, i: -i / 1_500,
        lambda _, i: 1.0 if (i // 40) % 2 else -1.0,
        lambda rng, i: rng.normal(0.7 if i > 700 else -0.3, 0.1),
    ]
    for traffic in worst:
        went = decided(share, traffic, 1_500)
        assert np.abs(np.cumsum(went - share)).max() <= (1 + SLACK) / GAIN + 1


def test_equal_ranks_still_keep_the_share() -> None:
    for share in (0.1, 0.5, 0.9):
        assert decided(share, lambda *_: 0.2, 1_000).mean() == pytest.approx(share, abs=0.03)


def test_it_still_sends_the_requests_that_gain_most() -> None:
    rng = np.random.default_rng(1)
    ranks = rng.choice(TRAINING, 3_000)
    for share in (0.1, 0.5, 0.9):
        went = decided(share, lambda _, i: float(ranks[i]), 3_000) > 0
        best = np.sort(ranks)[::-1][: int(went.sum())].mean()
        assert (ranks[went].mean() - ranks.mean()) / (best - ranks.mean()) > 0.9


def test_a_debt_that_cannot_be_paid_is_forgotten() -> None:
    controller = ShareController(0.3, 0.2, TRAINING)
    for _ in range(10_000):
        controller.observe(0.0, 1.0)
    assert controller.overspent == pytest.approx((0.3 + SLACK) / GAIN)
    assert controller.threshold() == NEVER_LARGE
    for _ in range(10_000):
        controller.observe(0.0, -1.0)
    assert controller.overspent == pytest.approx((0.3 - 1 - SLACK) / GAIN)
    assert controller.threshold() == ALWAYS_LARGE


def test_it_starts_at_the_training_threshold_and_its_offset_says_how_far_it_went() -> None:
    base = float(np.quantile(TRAINING, 0.6))
    controller = ShareController(0.4, base, TRAINING)
    assert controller.offset == pytest.approx(0, abs=0.02)
    for _ in range(400):
        controller.observe(0.9, float(controller.threshold() <= 0.9) - 0.4)
    assert controller.offset > 0.3


def test_pressure_takes_its_part_off_the_share() -> None:
    controller = ShareController(0.5, 0.15, TRAINING)
    thresholds = [controller.threshold(pressure) for pressure in (0.0, 0.5, 1.0)]
    assert thresholds == sorted(thresholds)
    assert (thresholds[1] <= TRAINING).mean() == pytest.approx(0.25, abs=0.03)
    assert thresholds[2] == NEVER_LARGE
