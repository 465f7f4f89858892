import numpy as np
import pytest

from router_model.logistic import Floats
from router_model.off_policy import Logged, Unidentifiable, doubly_robust, snips

EPSILON = 0.05


def world(n: int, seed: int) -> tuple[Logged, Floats, Floats, Floats]:
    """A log under epsilon exploration; another policy's probabilities, true mean rewards, and imperfect predictions."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(n)
    truth = np.stack([0.95 - 0.8 * difficulty, 0.95 - 0.2 * difficulty], axis=1)
    greedy = difficulty > 0.5
    explored = rng.random(n) < EPSILON
    went_large = greedy ^ explored
    reward = (rng.random(n) < np.where(went_large, truth[:, 1], truth[:, 0])).astype(float)
    asked = (difficulty > 0.3).astype(float)
    propensity = np.where(explored, EPSILON, 1 - EPSILON)
    return Logged(went_large, propensity, reward, np.arange(n)), asked, truth, np.clip(truth + 0.1, 0, 1)


def test_snips_and_dr_of_a_hand_computed_case() -> None:
    repeats = 200
    log = Logged(
        np.tile([True, False], repeats),
        np.tile([0.5, 0.5], repeats),
        np.tile([1.0, 0.0], repeats),
        np.arange(2 * repeats),
    )
    asked = np.full(2 * repeats, 0.75)
    # Weights 1.5 and 0.5: SNIPS is 1.5 / (1.5 + 0.5); DR with 0.5 predicted adds mean(1.5 * 0.5, 0.5 * -0.5).
    estimate = snips(log, asked)
    assert estimate.value == pytest.approx(0.75)
    assert estimate.ess == pytest.approx((2 * repeats) ** 2 / (repeats * (1.5**2 + 0.5**2)))
    assert doubly_robust(log, asked, np.full((2 * repeats, 2), 0.5)).value == pytest.approx(0.75)


@pytest.mark.parametrize("method", ["snips", "dr"])
def test_the_95_percent_interval_covers_the_truth_about_that_often(method: str) -> None:
    covered, errors = 0, []
    for seed in range(200):
        log, asked, truth, predicted = world(3_000, seed)
        estimate = snips(log, asked) if method == "snips" else doubly_robust(log, asked, predicted)
        true_value = float((truth[:, 0] + asked * (truth[:, 1] - truth[:, 0])).mean())
        covered += estimate.lower <= true_value <= estimate.upper
        errors.append(estimate.value - true_value)
    assert 181 <= covered <= 199  # 0.95 ± 3 standard errors of 200 draws
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(200)
    if method == "dr":
        assert np.sqrt(np.mean(np.square(errors))) < 0.025


def test_a_log_without_exploration_cannot_judge_another_policy() -> None:
    log, asked, _, _ = world(3_000, 0)
    deterministic = Logged(log.went_large, np.ones(3_000), log.reward, log.clusters)
    with pytest.raises(Unidentifiable, match="had no alternative"):
        snips(deterministic, asked)
    assert snips(deterministic, log.went_large.astype(float)).value == pytest.approx(log.reward.mean())


def test_a_small_effective_sample_is_refused() -> None:
    log, asked, _, predicted = world(150, 1)
    with pytest.raises(Unidentifiable, match="effective sample size"):
        doubly_robust(log, asked, predicted)


def test_turns_of_one_conversation_count_once() -> None:
    log, asked, _, _ = world(2_000, 2)
    five = np.repeat(np.arange(2_000), 5)
    alone = Logged(log.went_large[five], log.propensity[five], log.reward[five], np.arange(10_000))
    clustered = Logged(log.went_large[five], log.propensity[five], log.reward[five], five)
    narrow, wide = snips(alone, asked[five]), snips(clustered, asked[five])
    assert narrow.value == pytest.approx(wide.value)
    assert (wide.upper - wide.lower) / (narrow.upper - narrow.lower) == pytest.approx(np.sqrt(5), rel=0.05)


def test_a_malformed_log_is_refused() -> None:
    ones = np.ones(3)
    for went, propensity in ((np.ones(3, bool), np.zeros(3)), (np.ones(2, bool), ones), (np.ones(3, bool), 2 * ones)):
        with pytest.raises(ValueError, match=r"propensity|equally long"):
            Logged(went, propensity, ones, np.arange(3))
    with pytest.raises(ValueError, match="at least one"):
        Logged(np.ones(0, bool), np.ones(0), np.ones(0), np.arange(0))
