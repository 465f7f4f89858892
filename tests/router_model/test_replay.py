"""Logs made from a world with a known truth: estimates are unbiased and intervals hold it as often as they say."""

import numpy as np
import pytest

from router_model.replay import replay, replay_log


def outcomes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels [n, 2], evidence [n, 2] and group numbers [n], two rows a group with one difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = np.repeat(rng.random(n // 2), 2)
    p = np.stack([0.95 - 0.8 * difficulty, 0.95 - 0.3 * difficulty], axis=1)
    return (rng.random((n, 2)) < p).astype(float), p, np.repeat(np.arange(n // 2), 2)


def test_a_log_holds_the_reward_of_the_action_and_the_other_one_as_often_as_epsilon_says() -> None:
    labels, evidence, groups = outcomes(20_000)
    greedy = evidence[:, 1] - evidence[:, 0] > 0.2
    log = replay_log(labels, greedy, groups, 0.05, np.random.default_rng(1))
    explored = log.went_large != greedy
    assert explored.mean() == pytest.approx(0.05, abs=0.006)
    assert (log.propensity == np.where(explored, 0.05, 0.95)).all()
    assert (log.reward == labels[np.arange(20_000), log.went_large.astype(int)]).all()


def test_estimates_from_replayed_logs_are_unbiased_and_their_intervals_cover() -> None:
    labels, evidence, groups = outcomes(5_000)
    gain = evidence[:, 1] - evidence[:, 0]
    policies = {
        "small": np.zeros(5_000),
        "large": np.ones(5_000),
        "share": np.full(5_000, 0.3),
        "threshold": (gain > 0.1).astype(float),
    }
    found = replay(labels, evidence, gain > 0.2, groups, policies, epsilon=0.05, n_rows=3_000, n_replays=120, seed=3)
    assert len(found) == len(policies) * 3
    for one in found:
        assert one.refused == 0
        assert one.truth == pytest.approx(
            float((labels[:, 0] + policies[one.policy] * (labels[:, 1] - labels[:, 0])).mean())
        )
        assert abs(one.bias) < 4 * one.rmse / np.sqrt(120)
        # Each interval is right in 95 % of logs; 0.88 is three standard errors of 120 logs and a little below.
        assert one.coverage >= 0.88, one
    by_method = {m: [one.rmse for one in found if one.method == m] for m in ("ips", "snips", "dr")}
    assert np.mean(by_method["dr"]) < np.mean(by_method["ips"])


def test_logs_that_cannot_answer_are_counted_and_in_no_figure() -> None:
    labels, evidence, groups = outcomes(500)
    found = replay(
        labels, evidence, evidence[:, 0] < 0.5, groups, {"large": np.ones(500)}, epsilon=0.01, n_rows=200, n_replays=5
    )
    for one in found:
        assert one.refused == 5
        assert np.isnan([one.bias, one.rmse, one.coverage]).all()
