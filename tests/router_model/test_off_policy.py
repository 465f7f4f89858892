import numpy as np
import pytest

from router_model.logistic import Floats
from router_model.off_policy import (
    Logged,
    Unidentifiable,
    difference,
    doubly_robust,
    dr_terms,
    estimate,
    ips,
    snips,
    snips_terms,
)
from router_model.reward_model import cross_fitted_rewards

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


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_the_95_percent_interval_covers_the_truth_about_that_often(method: str) -> None:
    covered, errors = 0, []
    for seed in range(200):
        log, asked, truth, predicted = world(3_000, seed)
        match method:
            case "ips":
                estimate = ips(log, asked)
            case "snips":
                estimate = snips(log, asked)
            case _:
                estimate = doubly_robust(log, asked, predicted)
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
    # The standard error by the root of five; and fewer degrees of freedom, so a larger quantile of Student's t.
    assert np.sqrt(5) <= (wide.upper - wide.lower) / (narrow.upper - narrow.lower) <= 1.3 * np.sqrt(5)


def test_a_malformed_log_is_refused() -> None:
    ones = np.ones(3)
    for went, propensity in ((np.ones(3, bool), np.zeros(3)), (np.ones(2, bool), ones), (np.ones(3, bool), 2 * ones)):
        with pytest.raises(ValueError, match=r"propensity|equally long"):
            Logged(went, propensity, ones, np.arange(3))
    with pytest.raises(ValueError, match="at least one"):
        Logged(np.ones(0, bool), np.ones(0), np.ones(0), np.arange(0))


def test_self_normalising_beats_plain_weighting_and_the_reward_model_beats_both() -> None:
    errors: dict[str, list[float]] = {"ips": [], "snips": [], "dr": []}
    for seed in range(150):
        log, _, truth, _ = world(3_000, seed)
        asked = np.zeros(3_000)
        evidence = truth + 0.05  # shifted, but it ranks requests
        predicted = cross_fitted_rewards(log, evidence, np.random.default_rng(seed))
        true_value = float((truth[:, 0] + asked * (truth[:, 1] - truth[:, 0])).mean())
        for name, value in (("ips", ips(log, asked)), ("snips", snips(log, asked))):
            errors[name].append(value.value - true_value)
        errors["dr"].append(doubly_robust(log, asked, predicted).value - true_value)
    rmse = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in errors.items()}
    assert rmse["dr"] < rmse["snips"] < rmse["ips"]


def test_a_paired_difference_is_narrower_than_its_parts_and_covers() -> None:
    covered, widths = 0, []
    for seed in range(100):
        log, asked, truth, predicted = world(3_000, seed)
        as_logged = np.where(log.went_large, log.propensity, 1 - log.propensity)
        one, other = dr_terms(log, asked, predicted), dr_terms(log, as_logged, predicted)
        apart = difference(log, one, other)
        gains = truth[:, 1] - truth[:, 0]
        # The logging policy's own probabilities, of which as_logged knows only the action that was taken.
        greedy = np.where(log.propensity < 0.5, ~log.went_large, log.went_large)
        logging = np.where(greedy, 1 - EPSILON, EPSILON)
        true_difference = float(((asked - logging) * gains).mean())
        covered += apart.lower <= true_difference <= apart.upper
        alone = estimate(log, one)
        widths.append((apart.upper - apart.lower, alone.upper - alone.lower))
    assert covered >= 89
    assert np.mean(widths, axis=0)[0] < np.mean(widths, axis=0)[1]


def test_a_row_of_weight_two_is_that_row_twice() -> None:
    log, asked, _, predicted = world(3_000, 4)
    rows = np.arange(3_000)
    twice = np.concatenate([rows, rows[:1_000]])
    weighted = Logged(log.went_large, log.propensity, log.reward, log.clusters, np.where(rows < 1_000, 2.0, 1.0))
    repeated = Logged(log.went_large[twice], log.propensity[twice], log.reward[twice], log.clusters[twice])
    for method in (ips, snips):
        assert method(weighted, asked).value == pytest.approx(method(repeated, asked[twice]).value)
        # Rows that come twice are one cluster, so the intervals agree, too.
        assert method(weighted, asked).lower == pytest.approx(method(repeated, asked[twice]).lower, rel=1e-3)
    assert doubly_robust(weighted, asked, predicted).value == pytest.approx(
        doubly_robust(repeated, asked[twice], predicted[twice]).value
    )


def test_terms_average_to_the_estimate() -> None:
    log, asked, _, predicted = world(3_000, 5)
    for terms in (snips_terms(log, asked), dr_terms(log, asked, predicted)):
        assert float(terms.terms.mean()) == pytest.approx(terms.value)


def test_rewards_are_predicted_without_looking_at_the_row() -> None:
    log, _, truth, _ = world(400, 6)
    before = cross_fitted_rewards(log, truth, np.random.default_rng(0))
    changed = log.reward.copy()
    changed[7] = 1 - changed[7]
    one = Logged(log.went_large, log.propensity, changed, log.clusters)
    after = cross_fitted_rewards(one, truth, np.random.default_rng(0))
    assert (after[7] == before[7]).all()
    assert (after != before).any()
    # Nor at a row of the same conversation.
    paired = Logged(log.went_large, log.propensity, log.reward, np.arange(400) // 2)
    turned = Logged(log.went_large, log.propensity, changed, np.arange(400) // 2)
    before, after = (cross_fitted_rewards(each, truth, np.random.default_rng(0)) for each in (paired, turned))
    assert (after[6:8] == before[6:8]).all()


def test_predicted_rewards_follow_what_evidence_says_and_stay_among_those_seen() -> None:
    log, _, truth, _ = world(4_000, 8)
    predicted = cross_fitted_rewards(log, truth, np.random.default_rng(0))
    assert np.abs(predicted - truth).mean() < 0.06
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    nothing = cross_fitted_rewards(log, np.full((4_000, 2), np.nan), np.random.default_rng(0))
    assert np.isfinite(nothing).all()
