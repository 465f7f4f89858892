"""Replays: a log made from outcomes of both models, where every policy's true value is known. Shows whether estimates
and intervals from logs are what they say.
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.folds import group_numbers
from router_model.logistic import Floats
from router_model.off_policy import Estimate, Logged, Unidentifiable, doubly_robust, ips, snips
from router_model.reward_model import cross_fitted_rewards

METHODS = ("ips", "snips", "dr")


class Replayed(msgspec.Struct, frozen=True):
    """One estimator of one policy over many replayed logs. truth: the policy's mean reward over all outcomes.

    bias: mean error; rmse: root mean square error; coverage: share of logs whose 95 % interval holds the truth;
    width: mean length of it; refused: logs that could not answer (in none of the figures before).
    """

    policy: str
    method: str
    truth: float
    bias: float
    rmse: float
    coverage: float
    width: float
    ess: float
    refused: int


def replay_log(
    labels: Floats,
    greedy_large: NDArray[np.bool_],
    clusters: NDArray[np.intp],
    epsilon: float,
    rng: np.random.Generator,
) -> Logged:
    """What a gateway would have logged: the greedy action, or with probability `epsilon` the other one.

    labels float64 [n, 2]: rewards of small and large, of which the log holds the one that was taken.
    """
    explored = rng.random(len(labels)) < epsilon
    went_large = greedy_large ^ explored
    reward = np.where(went_large, labels[:, 1], labels[:, 0])
    return Logged(went_large, np.where(explored, epsilon, 1 - epsilon), reward, clusters)


def replay(
    labels: Floats,
    evidence: Floats,
    greedy_large: NDArray[np.bool_],
    groups: NDArray[np.intp],
    policies: Mapping[str, Floats],
    *,
    epsilon: float,
    n_rows: int,
    n_replays: int,
    seed: int = 0,
) -> list[Replayed]:
    """Draw `n_replays` logs of about `n_rows` decisions and estimate each of `policies` from each log by each method.

    Whole groups are drawn with replacement, as if they came from a stream without end whose every request looks like
    one of the outcomes; so the truth is the mean over all outcomes, and every draw of a group is a conversation of its
    own. Only the folds of the reward model keep draws of one group together: it must not see the row that it is asked
    about. evidence float64 [n, d]: what the reward model reads. policies: P(large) [n].
    """
    rng = np.random.default_rng(seed)
    members = _members(groups)
    made: dict[tuple[str, str], list[Estimate | None]] = {(name, m): [] for name in policies for m in METHODS}
    for _ in range(n_replays):
        rows, draws = _draw(members, n_rows, rng)
        log = replay_log(labels[rows], greedy_large[rows], draws, epsilon, rng)
        predicted = cross_fitted_rewards(replace(log, clusters=groups[rows]), evidence[rows], rng)
        for name, large_probability in policies.items():
            asked = large_probability[rows]
            for method in METHODS:
                made[name, method].append(_asked(method, log, asked, predicted))
    return [
        _summary(name, method, _truth(labels, policies[name]), estimates) for (name, method), estimates in made.items()
    ]


def _asked(method: str, log: Logged, asked: Floats, predicted: Floats) -> Estimate | None:
    try:
        match method:
            case "ips":
                return ips(log, asked)
            case "snips":
                return snips(log, asked)
        return doubly_robust(log, asked, predicted)
    except Unidentifiable:
        return None


def _truth(labels: Floats, large_probability: Floats) -> float:
    return float((labels[:, 0] + large_probability * (labels[:, 1] - labels[:, 0])).mean())


def _members(groups: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    numbers = group_numbers([str(group) for group in groups])
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.searchsorted(numbers[order], np.arange(1, int(numbers.max()) + 1)))


def _draw(
    members: list[NDArray[np.intp]], n_rows: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of whole groups until there are n_rows, the last group cut; and the number of the draw that each is of."""
    mean_size = sum(map(len, members)) / len(members)
    chosen: list[NDArray[np.intp]] = []
    total = 0
    while total < n_rows:
        for number in rng.integers(0, len(members), int((n_rows - total) / mean_size) + 1):
            chosen.append(members[number])
            total += len(members[number])
    draws = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    return np.concatenate(chosen)[:n_rows], draws[:n_rows]


def _summary(policy: str, method: str, truth: float, estimates: list[Estimate | None]) -> Replayed:
    given = [one for one in estimates if one is not None]
    if not given:
        nothing = float("nan")
        return Replayed(policy, method, truth, nothing, nothing, nothing, nothing, nothing, len(estimates))
    errors = np.array([one.value - truth for one in given])
    return Replayed(
        policy=policy,
        method=method,
        truth=truth,
        bias=float(errors.mean()),
        rmse=float(np.sqrt(np.square(errors).mean())),
        coverage=float(np.mean([one.lower <= truth <= one.upper for one in given])),
        width=float(np.mean([one.upper - one.lower for one in given])),
        ess=float(np.mean([one.ess for one in given])),
        refused=len(estimates) - len(given),
    )
