"""The learned router beside simple ones, on public outcomes and on those of our own pair; and what a decision costs.

python -m benchmarks.router [--data FOLDER] [--own FILE] [--out FOLDER] [--folds N]

--data holds the `*.dev.jsonl.gz` files of outcomes; by default `$POINTSMAN_DATA/routing`. --own is a file of outcomes
with prefill states. Nothing is scored on a question that its router was trained on: folds part no group of questions
("in domain"), or no subject ("unseen subjects"), or the router was trained on another file ("MMLU to GSM8K"). Intervals
are 95 %, from a bootstrap over groups. Writes router.json and router.md into --out. Takes some ten minutes on one core.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# One thread: the products are small, and threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.router_latency import STATE_SHAPE, Latency, Times, measure_latency, with_synthetic_states
from router_model.baselines import knn_scores, length_scores, oracle_scores, random_scores, subject_scores
from router_model.bundle import SHARE_TARGETS, TARGETS, bundle
from router_model.cascade import answer_of
from router_model.evaluation import (
    Calibration,
    Measured,
    RoutingQuality,
    apgr_differences,
    bootstrap,
    calibration,
    routing_quality,
)
from router_model.features import Features, Kind, extract_outcome
from router_model.folds import group_numbers, grouped_folds
from router_model.labels import labels_of
from router_model.metrics import pgr
from router_model.outcomes import Outcome, read_outcomes
from router_model.promises import SHARES, shares_kept
from router_model.score import EDGE, goes_large
from router_model.training import Trained, train, train_features

MMLU, GSM8K, MIX = "routellm-mmlu", "routellm-gsm8k", "llmrouter-mix"
OWN = Path("bundled_models/runs/outcomes.jsonl.gz")
KINDS = (Kind.STATE, Kind.TEXT)
"""What routers of our own pair may read."""


class TargetKept(msgspec.Struct, frozen=True):
    """What a quality target came to on questions kept out of training: large share and PGR realised (None: no gap)."""

    wanted: float
    large_share: float
    pgr: float | None


class ShareKept(msgspec.Struct, frozen=True):
    """A wanted large share, mean over the folds: by the training data's threshold, and by the share controller."""

    wanted: float
    fixed: float
    controlled: float


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
    calibration_large: Calibration
    targets: dict[str, TargetKept]
    shares: list[ShareKept]


class Results(msgspec.Struct, frozen=True):
    """Everything the command prints. load: of the machine during the run, in processes."""

    machine: str
    versions: str
    load: float
    seconds: float
    experiments: list[Experiment]
    latency: list[Latency]


class Dataset:
    """Outcomes with their features of one kind, computed once."""

    def __init__(self, outcomes: Sequence[Outcome], kind: Kind) -> None:
        self.outcomes = list(outcomes)
        self.features = [extract_outcome(outcome, kind) for outcome in self.outcomes]
        self.labels = labels_of(self.outcomes).scores
        self.groups = group_numbers([outcome.group for outcome in self.outcomes])
        self.subjects = group_numbers([outcome.subject for outcome in self.outcomes])

    @classmethod
    def read(cls, path: Path, kind: Kind = Kind.TEXT) -> "Dataset":
        """Those of a file."""
        return cls(read_outcomes([path]), kind)

    def joined(self, *others: "Dataset") -> "Dataset":
        """This and others as one, with groups that stay apart and subjects that belong to a file."""
        both = Dataset([], Kind.TEXT)
        for part in (self, *others):
            both.outcomes += part.outcomes
            both.features += part.features
        both.labels = np.concatenate([part.labels for part in (self, *others)])
        both.groups = group_numbers([one.group for one in both.outcomes])
        both.subjects = group_numbers([f"{one.source} {one.subject}" for one in both.outcomes])
        return both

    def train(self, rows: NDArray[np.intp]) -> Trained:
        """A router trained on those rows."""
        return train_features(self._features(rows), self.rows(rows))

    def rows(self, rows: NDArray[np.intp]) -> list[Outcome]:
        """Some outcomes."""
        return [self.outcomes[i] for i in rows]

    def _features(self, rows: NDArray[np.intp]) -> list[Features]:
        return [self.features[i] for i in rows]


class Scored:
    """Predictions for every row of a dataset, filled in fold by fold by routers that did not see the row."""

    def __init__(self, data: Dataset) -> None:
        n = len(data.outcomes)
        self.data = data
        self.score, self.knn, self.subject, self.p_small, self.p_large, self.ood = (np.zeros(n) for _ in range(6))
        self.right = np.full(n, np.nan)
        self.is_large = {name: np.zeros(n, np.bool_) for name, _ in TARGETS}
        self.shares: list[list[tuple[float, float]]] = []

    def fill(self, trained: Trained, seen: Dataset, train_rows: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
        """Predict `rows` with a router trained on `train_rows` of `seen`."""
        features = [self.data.features[i] for i in rows]
        known, labels = seen.rows(train_rows), seen.labels[train_rows]
        predicted = trained.model.predict(features)
        self.score[rows], self.ood[rows] = predicted.score, predicted.ood
        self.p_small[rows], self.p_large[rows] = predicted.p_small, predicted.p_large
        self.knn[rows] = knn_scores(trained.model.encoder, [seen.features[i] for i in train_rows], labels, features)
        self.subject[rows] = subject_scores(known, labels, self.data.rows(rows))
        if trained.cascade is not None:
            for row, small, large in zip(rows, predicted.p_small, predicted.p_large, strict=True):
                answer = answer_of(self.data.outcomes[row])
                if answer is not None:
                    self.right[row] = trained.cascade.p_right(float(small), float(large), answer)
        artefact = bundle(trained, known)
        for name, point in artefact.manifest.targets.items():
            is_guarded = name not in SHARE_TARGETS
            ood = predicted.ood if is_guarded else np.zeros(len(rows))
            self.is_large[name][rows] = goes_large(predicted.score, ood, point.threshold)
        self.shares.append([(one.fixed, one.controlled) for one in shares_kept(artefact, predicted)])

    def experiment(self, name: str, rows: NDArray[np.intp] | None = None) -> Experiment:
        """Measure what was filled in, on all rows or on some."""
        at = np.arange(len(self.score)) if rows is None else rows
        labels = self.data.labels[at]
        outcomes = self.data.rows(at)
        rivals = {
            "kNN": self.knn[at],
            "subject prior": self.subject[at],
            "length": length_scores(outcomes),
            "random": random_scores(outcomes),
            "oracle": oracle_scores(labels),
        }
        if np.isfinite(self.right[at]).all():
            rivals["ours with the answer"] = self.p_large[at] - self.right[at]
        draws = bootstrap(self.data.groups[at], np.random.default_rng(0))
        small, large = labels.mean(axis=0)
        kept = np.mean(self.shares, axis=0)  # [wanted, fixed and controlled]
        return Experiment(
            name=name,
            n_rows=len(at),
            small_quality=float(small),
            large_quality=float(large),
            out_of_domain_share=float(np.mean(self.ood[at] > EDGE)),
            routers={
                router: routing_quality(scores, labels, draws)
                for router, scores in {"router": self.score[at], **rivals}.items()
            },
            apgr_over=apgr_differences(self.score[at], rivals, labels, draws),
            calibration_small=calibration(self.p_small[at], labels[:, 0], draws),
            calibration_large=calibration(self.p_large[at], labels[:, 1], draws),
            targets={target: self._kept(target, wanted, at) for target, wanted in TARGETS},
            shares=[ShareKept(wanted, *map(float, each)) for wanted, each in zip(SHARES, kept, strict=True)],
        )

    def _kept(self, target: str, wanted: float, at: NDArray[np.intp]) -> TargetKept:
        goes, labels = self.is_large[target][at], self.data.labels[at]
        recovered = float(pgr(float(np.where(goes, labels[:, 1], labels[:, 0]).mean()), labels))
        return TargetKept(wanted, float(goes.mean()), recovered if np.isfinite(recovered) else None)


def cross_validated(data: Dataset, parts: NDArray[np.intp], n_folds: int) -> Scored:
    """Train on all folds but one and score that one; rows of one part (numbers [n]) are never on both sides."""
    folds = grouped_folds(parts, n_folds, np.random.default_rng(0))
    scored = Scored(data)
    for fold in range(n_folds):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        scored.fill(data.train(rest), data, rest, held)
    return scored


def transferred(trained: Trained, seen: Dataset, data: Dataset) -> Scored:
    """Score `data` by a router trained on all of `seen`."""
    scored = Scored(data)
    scored.fill(trained, seen, np.arange(len(seen.outcomes)), np.arange(len(data.outcomes)))
    return scored


def own_pair(path: Path, n_folds: int) -> list[Experiment]:
    """The router on our own pair's outcomes, by what it reads: the prefill state, or the text."""
    outcomes = read_outcomes([path])
    scored = {kind: cross_validated(one := Dataset(outcomes, kind), one.groups, n_folds) for kind in KINDS}
    state, text = (scored[kind] for kind in KINDS)
    experiment = state.experiment("own pair, prefill state")
    draws = bootstrap(state.data.groups, np.random.default_rng(0))
    over = apgr_differences(state.score, {"ours on text": text.score}, state.data.labels, draws)
    routers = {**experiment.routers, "ours on text": routing_quality(text.score, text.data.labels, draws)}
    return [msgspec.structs.replace(experiment, routers=routers, apgr_over={**experiment.apgr_over, **over})]


def main(arguments: list[str] | None = None) -> int:
    """Run everything, print the tables and write the files."""
    options = _parser().parse_args(arguments)
    if not options.data.is_dir():
        print(f"{options.data} is no folder: name the one with the *.dev.jsonl.gz files by --data", file=sys.stderr)
        return 2
    started = time.perf_counter()
    mmlu, gsm8k, mix = (Dataset.read(options.data / f"{name}.dev.jsonl.gz") for name in (MMLU, GSM8K, MIX))
    on_mmlu = mmlu.train(np.arange(len(mmlu.outcomes)))
    together = cross_validated(every := mmlu.joined(gsm8k, mix), every.groups, options.folds)
    sources = np.array([outcome.source for outcome in every.outcomes])
    experiments = [
        cross_validated(mmlu, mmlu.groups, options.folds).experiment("MMLU, in domain"),
        cross_validated(mmlu, mmlu.subjects, options.folds).experiment("MMLU, unseen subjects"),
        cross_validated(gsm8k, gsm8k.groups, options.folds).experiment("GSM8K, in domain"),
        cross_validated(mix, mix.groups, options.folds).experiment("mix, in domain"),
        transferred(on_mmlu, mmlu, gsm8k).experiment("MMLU to GSM8K"),
        transferred(on_mmlu, mmlu, mix).experiment("MMLU to mix"),
        *(together.experiment(f"all together: {name}", np.flatnonzero(sources == name)) for name in (MMLU, GSM8K, MIX)),
        *(own_pair(options.own, options.folds) if options.own.is_file() else ()),
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
            measure_latency(bundle(train(stateful), stateful), with_synthetic_states(mmlu.outcomes[:2_000])),
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
        "`python -m benchmarks.router` on public outcomes of other models (so on text features alone), and on those of",
        f"the bundled pair. Brackets are 95 % intervals. {results.machine}, {results.versions}, load "
        f"{results.load:.1f}, {results.seconds:.0f} s.",
        "No question was scored by a router that had seen it, but features and sizes were chosen on these files, by",
        "folds of the same kind: expect some 0.01 less on others.",
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
                _number(quality.cpt50.value, 1),
                _number(quality.cpt80.value, 1),
                _number(quality.auroc_need.value),
            )
            lines.append(f"| {' | '.join(cells)} |")
    wanted = " | ".join(f"PGR for {quality} wanted (large share)" for _, quality in TARGETS)
    lines += [
        "",
        f"| questions kept out | small, large | out of domain | ECE, debiased: p_small, p_large | {wanted} |",
        "|---|---|---|---|" + "---|" * len(TARGETS),
    ]
    for experiment in results.experiments:
        kept = " | ".join(f"{_number(one.pgr)} ({one.large_share:.0%})" for one in experiment.targets.values())
        small, large = experiment.calibration_small, experiment.calibration_large
        honest = f"{_number(small.ece_debiased.value)}, {_number(large.ece_debiased.value)}"
        models = f"{experiment.small_quality:.3f}, {experiment.large_quality:.3f}"
        lines.append(f"| {experiment.name} | {models} | {experiment.out_of_domain_share:.1%} | {honest} | {kept} |")
    shares = " | ".join(f"{share:.0%} wanted: fixed, controlled" for share in SHARES)
    lines += ["", f"| large shares, mean of the folds | {shares} |", "|---|" + "---|" * len(SHARES)]
    for experiment in results.experiments:
        if experiment.name.startswith("all together") and MMLU not in experiment.name:
            continue  # of the three files at once, so once is enough
        kept = " | ".join(f"{one.fixed:.1%}, {one.controlled:.1%}" for one in experiment.shares)
        lines.append(f"| {experiment.name.removesuffix(': ' + MMLU)} | {kept} |")
    return "\n".join([*lines, "", *_latency_lines(results.latency)]) + "\n"


def _latency_lines(latencies: Sequence[Latency]) -> list[str]:
    lines = [
        f"CPU time in µs, p50 / p99 (kind state: random states of shape {list(STATE_SHAPE)}, for their size only); in",
        "brackets wall time:",
        "",
        "| kind | features | decision | both | front model, features included |",
        "|---|---|---|---|---|",
    ]
    for one in latencies:
        cells = [_times(times) for times in (one.extract, one.decide, one.both, one.front)]
        lines.append(f"| {one.kind.value} | {' | '.join(cells)} |")
    return lines


def _times(times: Times | None) -> str:
    if times is None:
        return "–"
    cpu = f"{times.cpu_p50_us:.0f} / {times.cpu_p99_us:.0f}"
    return f"{cpu} ({times.wall_p50_us:.0f} / {times.wall_p99_us:.0f})"


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
    parser.add_argument("--own", type=Path, default=OWN, help="outcomes with prefill states (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results"), help="where to write (default: %(default)s)"
    )
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
