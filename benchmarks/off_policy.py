"""Estimates from a log against the truth: how far off, and how often their 95 % intervals hold it.

python -m benchmarks.off_policy [--data FOLDER] [--out FOLDER] [--replays N] [--rows N]

Logs are made from outcomes of both models on MMLU questions (`routellm-mmlu.dev.jsonl.gz` in --data, by default
`$POINTSMAN_DATA/routing`): a router decides at half of the requests on the large model, and explores. It and the reward
model read held-out predictions. Writes off_policy.json and off_policy.md into --out. Takes a minute or two.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.folds import group_numbers
from router_model.logistic import Floats
from router_model.outcomes import read_outcomes
from router_model.replay import METHODS, Replayed, replay
from router_model.training import train

EPSILONS = (0.02, 0.05, 0.1, 0.2)
LOGGED = "as logged"
NAMES = {"ips": "IPS", "snips": "SNIPS", "dr": "DR"}


class AtEpsilon(msgspec.Struct, frozen=True, kw_only=True):
    """All policies at one rate of exploration. rmse and coverage by method: root mean square of the policies' rmse,
    mean and least of their coverage; the policy that is logged itself is in `policies` only.
    """

    epsilon: float
    rmse: dict[str, float]
    coverage: dict[str, float]
    least_coverage: dict[str, float]
    policies: list[Replayed]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the command prints. n_outcomes: questions; n_rows: decisions in each log."""

    machine: str
    versions: str
    seconds: float
    n_outcomes: int
    n_rows: int
    n_replays: int
    small_quality: float
    large_quality: float
    by_epsilon: list[AtEpsilon]


def policies_of(score: Floats, epsilon: float) -> dict[str, Floats]:
    """P(large) of each policy that is asked about: far from and near to the one that is logged."""
    n = len(score)
    ranked = {f"{share:.0%} large": (score >= np.quantile(score, 1 - share)) for share in (0.2, 0.35, 0.65, 0.8)}
    greedy = score >= np.quantile(score, 0.5)
    return {
        "all small": np.zeros(n),
        "all large": np.ones(n),
        "random half": np.full(n, 0.5),
        **{name: goes.astype(np.float64) for name, goes in ranked.items()},
        LOGGED: np.where(greedy, 1 - epsilon, epsilon),
    }


def measure(
    labels: Floats, evidence: Floats, score: Floats, groups: NDArray[np.intp], options: argparse.Namespace
) -> list[AtEpsilon]:
    """Replay every policy at every rate of exploration."""
    found = []
    for epsilon in EPSILONS:
        policies = policies_of(score, epsilon)
        greedy = score >= np.quantile(score, 0.5)
        replayed = replay(
            labels,
            evidence,
            greedy,
            groups,
            policies,
            epsilon=epsilon,
            n_rows=options.rows,
            n_replays=options.replays,
        )
        found.append(summary(epsilon, replayed))
        print(f"epsilon {epsilon:.0%} done", file=sys.stderr, flush=True)
    return found


def summary(epsilon: float, replayed: list[Replayed]) -> AtEpsilon:
    """Over all policies but that which is logged, and those that could not be judged."""
    asked = [one for one in replayed if one.policy != LOGGED and np.isfinite(one.rmse)]

    def over(method: str, field: str) -> Floats:
        return np.array([getattr(one, field) for one in asked if one.method == method])

    return AtEpsilon(
        epsilon=epsilon,
        rmse={method: float(np.sqrt(np.square(over(method, "rmse")).mean())) for method in METHODS},
        coverage={method: float(over(method, "coverage").mean()) for method in METHODS},
        least_coverage={method: float(over(method, "coverage").min()) for method in METHODS},
        policies=replayed,
    )


def markdown(results: Results) -> str:
    """The results as tables."""
    lines = [
        "# Off-policy estimates",
        "",
        f"`python -m benchmarks.off_policy`: {results.n_replays} logs of {results.n_rows} decisions for each rate of "
        f"exploration, made from {results.n_outcomes:,}",
        f"MMLU questions that both models answered (small {results.small_quality:.3f}, large "
        f"{results.large_quality:.3f}). The logged policy sends half of the requests to the",
        f"large model. {results.machine}, {results.versions}, {results.seconds:.0f} s.",
        "",
        "Over seven policies (all small, all large, random half, 20 / 35 / 65 / 80 % large): root mean square error,",
        "and how often nominal 95 % intervals hold the truth (mean, least). A policy refused in every log is left out.",
        "",
        f"| exploration | {' | '.join(f'{NAMES[m]} rmse | {NAMES[m]} coverage' for m in METHODS)} |",
        "|---|" + "---|---|" * len(METHODS),
    ]
    for one in results.by_epsilon:
        cells = [f"{one.rmse[m]:.4f} | {one.coverage[m]:.1%}, {one.least_coverage[m]:.1%}" for m in METHODS]
        lines.append(f"| {one.epsilon:.0%} | {' | '.join(cells)} |")
    for one in results.by_epsilon:
        lines += [
            "",
            f"Exploration {one.epsilon:.0%}, each policy by DR:",
            "",
            "| policy | truth | bias | rmse | coverage | width of the interval | ESS | refused |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for each in one.policies:
            if each.method == "dr":
                figures = (
                    _number(each.bias, "+.4f"),
                    _number(each.rmse, ".4f"),
                    _number(each.coverage, ".1%"),
                    _number(each.width, ".3f"),
                    _number(each.ess, ".0f"),
                )
                lines.append(f"| {each.policy} | {each.truth:.4f} | {' | '.join(figures)} | {each.refused} |")
    return "\n".join(lines) + "\n"


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if np.isfinite(value) else "–"


def main(arguments: list[str] | None = None) -> int:
    """Run everything, print the tables and write the files."""
    options = _parser().parse_args(arguments)
    path = options.data / "routellm-mmlu.dev.jsonl.gz"
    if not path.is_file():
        print(f"there is no {path}: name the folder with the *.dev.jsonl.gz files by --data", file=sys.stderr)
        return 2
    started = time.perf_counter()
    outcomes = read_outcomes([path])
    labels = np.array([(one.weak_score, one.strong_score) for one in outcomes], np.float64)
    groups = group_numbers([one.group for one in outcomes])
    held_out = train(outcomes).held_out
    evidence = np.stack([held_out.p_small, held_out.p_large, held_out.score], axis=1)
    by_epsilon = measure(labels, evidence, held_out.score, groups, options)
    small, large = labels.mean(axis=0)
    results = Results(
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        versions=f"Python {platform.python_version()}, numpy {np.__version__}",
        seconds=time.perf_counter() - started,
        n_outcomes=len(outcomes),
        n_rows=options.rows,
        n_replays=options.replays,
        small_quality=float(small),
        large_quality=float(large),
        by_epsilon=by_epsilon,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "off_policy.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    text = markdown(results)
    (options.out / "off_policy.md").write_text(text)
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("POINTSMAN_DATA", "data")) / "routing"
    parser.add_argument("--data", type=Path, default=default, help="folder of outcomes (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="where to write (default: %(default)s)"
    )
    parser.add_argument("--replays", type=int, default=1_000, help="logs for each rate (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2_900, help="decisions in each log (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
