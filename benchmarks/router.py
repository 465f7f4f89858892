"""The router beside random, length, nearest neighbours and the oracle, on public outcomes; and what a decision costs in
time.

python -m benchmarks.router [--data FOLDER] [--out FOLDER] [--folds N]

--data holds the `*.dev.jsonl.gz` files of outcomes; by default `$POINTSMAN_DATA/routing`. Nothing is scored on a
question that its router was trained on: folds part no group of questions ("in domain"), or no subject ("unseen
subjects"), or the router was trained on another file ("transfer"). Intervals are 95 %, from a bootstrap over groups.
Writes router.json and router.md into --out. Takes some minutes on one core.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.artefact import RouterArtefact
from router_model.baselines import knn_scores, length_scores, oracle_scores, random_scores
from router_model.bundle import TARGETS, bundle
from router_model.evaluation import (
    Calibration,
    Measured,
    RoutingQuality,
    apgr_differences,
    calibration,
    routing_quality,
)
from router_model.facts import RequestFacts
from router_model.features import Features, Kind, extract, extract_outcome
from router_model.folds import group_numbers, grouped_folds
from router_model.logistic import Floats
from router_model.metrics import pgr
from router_model.outcomes import Outcome, read_outcomes
from router_model.policy import Policy, RouteOptions
from router_model.prefill import PrefillState
from router_model.score import EDGE, goes_large
from router_model.training import Trained, labels_of, train, train_features

MMLU, GSM8K, MIX = "routellm-mmlu", "routellm-gsm8k", "llmrouter-mix"
STATE_SHAPE = (3, 2, 256)
"""Of the synthetic prefill states in the latency measurement: three layers of a small model of width 256."""


class TargetKept(msgspec.Struct, frozen=True):
    """What a quality target came to on questions kept out of training: large share and PGR realised (None: no gap)."""

    wanted: float
    large_share: float
    pgr: float | None


class Experiment(msgspec.Struct, frozen=True):
    """One way to keep questions out of training, on one file."""

    name: str
    n_rows: int
    small_quality: float
    large_quality: float
    out_of_domain_share: float
    routers: dict[str, RoutingQuality]
    apgr_over: dict[str, Measured]
    calibration_small: Calibration
    targets: dict[str, TargetKept]


class Times(msgspec.Struct, frozen=True):
    """Microseconds of a call: CPU time of the thread, and wall time, which other processes lengthen."""

    cpu_p50_us: float
    cpu_p99_us: float
    wall_p50_us: float
    wall_p99_us: float


class Latency(msgspec.Struct, frozen=True):
    """Of one request on one thread: features from text (and state), and the decision from features."""

    kind: Kind
    extract: Times
    decide: Times


class Results(msgspec.Struct, frozen=True):
    """Everything the command prints. load: of the machine during the run, in processes."""

    machine: str
    versions: str
    load: float
    seconds: float
    experiments: list[Experiment]
    latency: list[Latency]


class Dataset:
    """A file of outcomes with their text features, computed once."""

    def __init__(self, folder: Path, name: str) -> None:
        self.outcomes = read_outcomes([folder / f"{name}.dev.jsonl.gz"])
        self.features = [extract_outcome(outcome, Kind.TEXT) for outcome in self.outcomes]
        self.labels = labels_of(self.outcomes).scores
        self.groups = group_numbers([outcome.group for outcome in self.outcomes])
        self.subjects = group_numbers([outcome.subject for outcome in self.outcomes])

    def train(self, rows: NDArray[np.intp]) -> Trained:
        """A router trained on those rows."""
        return train_features([self.features[i] for i in rows], [self.outcomes[i] for i in rows])


class Scored:
    """Predictions for every row of a dataset, filled in fold by fold by routers that did not see the row."""

    def __init__(self, data: Dataset) -> None:
        n = len(data.outcomes)
        self.score, self.knn, self.p_small, self.ood = (np.zeros(n) for _ in range(4))
        self.is_large = {name: np.zeros(n, np.bool_) for name, _ in TARGETS}

    def fill(
        self,
        trained: Trained,
        seen: Dataset,
        train_rows: NDArray[np.intp],
        data: Dataset,
        rows: NDArray[np.intp],
    ) -> None:
        """Predict `rows` of `data` with a router trained on `train_rows` of `seen`."""
        features = [data.features[i] for i in rows]
        known = [seen.features[i] for i in train_rows]
        predicted = trained.model.predict(features)
        self.score[rows], self.p_small[rows], self.ood[rows] = predicted.score, predicted.p_small, predicted.ood
        self.knn[rows] = knn_scores(trained.model.encoder, known, seen.labels[train_rows], features)
        for name, wanted in TARGETS:
            threshold = trained.curve.point_for(wanted).threshold
            self.is_large[name][rows] = goes_large(predicted.score, predicted.ood, threshold)

    def experiment(self, name: str, data: Dataset) -> Experiment:
        """Measure what was filled in."""
        rivals = {
            "kNN": self.knn,
            "length": length_scores(data.outcomes),
            "random": random_scores(data.outcomes),
            "oracle": oracle_scores(data.labels),
        }
        rng = np.random.default_rng(0)
        small, large = data.labels.mean(axis=0)
        return Experiment(
            name=name,
            n_rows=len(data.outcomes),
            small_quality=float(small),
            large_quality=float(large),
            out_of_domain_share=float(np.mean(self.ood > EDGE)),
            routers={
                router: routing_quality(scores, data.labels, data.groups, rng)
                for router, scores in {"router": self.score, **rivals}.items()
            },
            apgr_over=apgr_differences(self.score, rivals, data.labels, data.groups, rng),
            calibration_small=calibration(self.p_small, data.labels[:, 0]),
            targets={target: self._kept(target, wanted, data.labels) for target, wanted in TARGETS},
        )

    def _kept(self, target: str, wanted: float, labels: Floats) -> TargetKept:
        goes = self.is_large[target]
        recovered = float(pgr(float(np.where(goes, labels[:, 1], labels[:, 0]).mean()), labels))
        return TargetKept(wanted, float(goes.mean()), recovered if np.isfinite(recovered) else None)


def cross_validate(name: str, data: Dataset, parts: NDArray[np.intp], n_folds: int) -> Experiment:
    """Train on all folds but one and score that one; rows of one part (numbers [n]) are never on both sides."""
    folds = grouped_folds(parts, n_folds, np.random.default_rng(0))
    scored = Scored(data)
    for fold in range(n_folds):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        scored.fill(data.train(rest), data, rest, data, held)
    return scored.experiment(name, data)


def transfer(name: str, trained: Trained, seen: Dataset, data: Dataset) -> Experiment:
    """Score `data` by a router trained on all of `seen`."""
    scored = Scored(data)
    scored.fill(trained, seen, np.arange(len(seen.outcomes)), data, np.arange(len(data.outcomes)))
    return scored.experiment(name, data)


def measure_latency(artefact: RouterArtefact, requests: Sequence[Outcome], n: int = 2_000) -> Latency:
    """Time feature extraction and decisions, one request at a time."""
    policy, options, rng = Policy(artefact=artefact), RouteOptions(), np.random.default_rng(0)
    chosen = [requests[i % len(requests)] for i in range(n)]
    features: list[Features] = []
    facts = RequestFacts(prompt_tokens=300, n_tools=4, n_parameters=12, schema_depth=3, schema_properties=12)
    extracting = _timed(lambda i: features.append(extract(chosen[i].text, facts, chosen[i].state)), n)
    return Latency(policy.kind, extracting, _timed(lambda i: policy.decide(features[i], options, rng), n))


def with_synthetic_states(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with prefill states of STATE_SHAPE drawn at random: right in size, empty in meaning."""
    rng = np.random.default_rng(0)
    return [
        replace(
            outcome,
            state=PrefillState(rng.standard_normal(STATE_SHAPE, np.float32), float(rng.random()), float(rng.random())),
        )
        for outcome in outcomes
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run everything, print the tables and write the files."""
    options = _parser().parse_args(arguments)
    if not options.data.is_dir():
        print(f"{options.data} is no folder: name the one with the *.dev.jsonl.gz files by --data", file=sys.stderr)
        return 2
    started = time.perf_counter()
    mmlu, gsm8k, mix = (Dataset(options.data, name) for name in (MMLU, GSM8K, MIX))
    on_mmlu = mmlu.train(np.arange(len(mmlu.outcomes)))
    experiments = [
        cross_validate("MMLU, in domain", mmlu, mmlu.groups, options.folds),
        cross_validate("MMLU, unseen subjects", mmlu, mmlu.subjects, options.folds),
        cross_validate("GSM8K, in domain", gsm8k, gsm8k.groups, options.folds),
        cross_validate("mix, in domain", mix, mix.groups, options.folds),
        transfer("MMLU to GSM8K", on_mmlu, mmlu, gsm8k),
        transfer("MMLU to mix", on_mmlu, mmlu, mix),
    ]
    stateful = with_synthetic_states(gsm8k.outcomes)
    results = Results(
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        versions=f"Python {platform.python_version()}, numpy {np.__version__}",
        load=os.getloadavg()[0],
        seconds=time.perf_counter() - started,
        experiments=experiments,
        latency=[
            measure_latency(bundle(on_mmlu, mmlu.outcomes), mmlu.outcomes),
            measure_latency(bundle(train(stateful), stateful), stateful),
        ],
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "router.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    text = markdown(results)
    (options.out / "router.md").write_text(text)
    print(text)
    return 0


def markdown(results: Results) -> str:
    """The results as tables."""
    lines = [
        "# Router",
        "",
        "`python -m benchmarks.router` on public outcomes of other models, so on text features alone. Brackets are",
        f"95 % intervals. {results.machine}, {results.versions}, load {results.load:.1f}, {results.seconds:.0f} s.",
        "No question was scored by a router that had seen it, but the number of text components was chosen on MMLU.",
        "",
        "| questions kept out | router | APGR | ours - this | CPT50 % | CPT80 % | AUROC need |",
        "|---|---|---|---|---|---|---|",
    ]
    for experiment in results.experiments:
        for name, quality in experiment.routers.items():
            over = experiment.apgr_over.get(name)
            cells = (
                f"{experiment.name} (n {experiment.n_rows})" if name == "router" else "",
                "**ours**" if name == "router" else name,
                _interval(quality.apgr),
                "" if over is None else _interval(over),
                _number(quality.cpt50, 1),
                _number(quality.cpt80, 1),
                _number(quality.auroc_need.value),
            )
            lines.append(f"| {' | '.join(cells)} |")
    wanted = " | ".join(f"PGR for {quality} wanted (large share)" for _, quality in TARGETS)
    lines += [
        "",
        f"| questions kept out | small, large | out of domain | ECE p_small (debiased) | {wanted} |",
        "|---|---|---|---|" + "---|" * len(TARGETS),
    ]
    for experiment in results.experiments:
        kept = " | ".join(f"{_number(one.pgr)} ({one.large_share:.0%})" for one in experiment.targets.values())
        honest = f"{experiment.calibration_small.ece:.3f} ({experiment.calibration_small.ece_debiased:.3f})"
        models = f"{experiment.small_quality:.3f}, {experiment.large_quality:.3f}"
        lines.append(f"| {experiment.name} | {models} | {experiment.out_of_domain_share:.1%} | {honest} | {kept} |")
    lines += [
        "",
        f"Time in µs, p50 / p99 (kind state: random states of shape {list(STATE_SHAPE)}, for their size only):",
        "",
        "| kind | features, CPU | features, wall | decision, CPU | decision, wall |",
        "|---|---|---|---|---|",
    ]
    for latency in results.latency:
        figures = [
            f"{p50:.0f} / {p99:.0f}"
            for times in (latency.extract, latency.decide)
            for p50, p99 in ((times.cpu_p50_us, times.cpu_p99_us), (times.wall_p50_us, times.wall_p99_us))
        ]
        lines.append(f"| {latency.kind.value} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _timed(call: Callable[[int], object], n: int) -> Times:
    times = np.empty((n, 2))
    for i in range(n):
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        call(i)
        times[i] = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    (cpu_p50, wall_p50), (cpu_p99, wall_p99) = np.percentile(times / 1e3, (50, 99), axis=0)
    return Times(float(cpu_p50), float(cpu_p99), float(wall_p50), float(wall_p99))


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(measured: Measured) -> str:
    if measured.value is None or measured.lower is None or measured.upper is None:
        return _number(measured.value)
    return f"{measured.value:.3f} [{measured.lower:.3f}, {measured.upper:.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("POINTSMAN_DATA", "data")) / "routing"
    parser.add_argument("--data", type=Path, default=default, help="folder of outcomes (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="where to write (default: %(default)s)"
    )
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
