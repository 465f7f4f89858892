"""What `pointsman router train` and `pointsman router evaluate` do, as functions."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from router_model.artefact import RouterArtefact, TrainingMetrics
from router_model.baselines import length_scores, oracle_scores, random_scores
from router_model.bundle import bundle
from router_model.evaluation import (
    Calibration,
    Measured,
    RoutingQuality,
    apgr_differences,
    calibration,
    routing_quality,
)
from router_model.features import Kind, extract_outcome
from router_model.folds import group_numbers
from router_model.logistic import Floats
from router_model.metrics import pgr
from router_model.model import Predictions
from router_model.outcomes import OutcomeError, read_outcomes
from router_model.score import EDGE, goes_large
from router_model.tables import evaluation_table, training_table
from router_model.thresholds import CurvePoint
from router_model.training import TrainingOptions, labels_of
from router_model.training import train as train_router


class TrainReport(msgspec.Struct, frozen=True):
    """What training found.

    Metrics and targets are of held-out folds; is_identified: the large model is measurably better.
    """

    out_dir: str
    artefact_hash: str
    kind: Kind
    n_rows: int
    n_groups: int
    is_identified: bool
    metrics: TrainingMetrics
    targets: dict[str, CurvePoint]


class TargetOutcome(msgspec.Struct, frozen=True):
    """What a target's threshold did on the evaluated rows:

    promised and realised large share and PGR (None: no gap there).
    """

    promised_share: float
    promised_pgr: float
    large_share: float
    quality: float
    pgr: float | None


class EvaluationReport(msgspec.Struct, frozen=True):
    """An artefact on a file of outcomes. routers: by name (router, random, length, oracle).

    apgr_over: APGR of the router less that of the others, paired. out_of_domain_share: rows beyond ood 1.
    """

    artefact_hash: str
    data_file: str
    n_rows: int
    n_groups: int
    small_quality: float
    large_quality: float
    out_of_domain_share: float
    routers: dict[str, RoutingQuality]
    apgr_over: dict[str, Measured]
    calibration_small: Calibration
    calibration_large: Calibration
    targets: dict[str, TargetOutcome]


def train(
    data_files: Sequence[Path | str],
    out_dir: Path | str,
    *,
    small_model: str = "",
    large_model: str = "",
    seed: int = 0,
    show: Callable[[str], None] = print,
) -> TrainReport:
    """Train a router on outcome files (.jsonl, .jsonl.gz) and save its artefact into `out_dir`.

    small_model, large_model: fingerprints of the pair that made the outcomes; the gateway uses an artefact only with
    that pair. show: gets the table to print. OutcomeError: a malformed row, with file and line. ValueError: too few
    rows, or states on some rows only.
    """
    outcomes = read_outcomes(data_files)
    trained = train_router(outcomes, TrainingOptions(seed=seed))
    artefact = bundle(trained, outcomes, seed=seed, small_model=small_model, large_model=large_model)
    artefact.save(out_dir)
    manifest = artefact.manifest
    report = TrainReport(
        out_dir=str(out_dir),
        artefact_hash=artefact.hash,
        kind=manifest.kind,
        n_rows=manifest.n_rows,
        n_groups=manifest.n_groups,
        is_identified=manifest.is_identified,
        metrics=manifest.metrics,
        targets=manifest.targets,
    )
    show(training_table(report))
    return report


def evaluate(
    artefact_dir: Path | str,
    data_file: Path | str,
    json_out: Path | str | None = None,
    *,
    seed: int = 0,
    show: Callable[[str], None] = print,
) -> EvaluationReport:
    """Score a saved router on a file of outcomes; rows it was trained on flatter it, so give it others.

    json_out: where to write the report as JSON. show: gets the table to print. ArtefactError: no usable artefact.
    OutcomeError: a malformed row, or no rows. ValueError: rows without the prefill state that the router reads.
    """
    artefact = RouterArtefact.load(artefact_dir)
    outcomes = read_outcomes([data_file])
    if not outcomes:
        raise OutcomeError(f"{data_file} holds no rows")
    kind = artefact.manifest.kind
    seen = artefact.model.predict([extract_outcome(outcome, kind) for outcome in outcomes])
    labels = labels_of(outcomes).scores
    groups = group_numbers([outcome.group for outcome in outcomes])
    rivals = {"random": random_scores(outcomes), "length": length_scores(outcomes), "oracle": oracle_scores(labels)}
    rng = np.random.default_rng(seed)
    small, large = labels.mean(axis=0)
    report = EvaluationReport(
        artefact_hash=artefact.hash,
        data_file=str(data_file),
        n_rows=len(outcomes),
        n_groups=int(groups.max()) + 1,
        small_quality=float(small),
        large_quality=float(large),
        out_of_domain_share=float(np.mean(seen.ood > EDGE)),
        routers={
            name: routing_quality(scores, labels, groups, rng)
            for name, scores in {"router": seen.score, **rivals}.items()
        },
        apgr_over=apgr_differences(seen.score, rivals, labels, groups, rng),
        calibration_small=calibration(seen.p_small, labels[:, 0]),
        calibration_large=calibration(seen.p_large, labels[:, 1]),
        targets={name: _target_outcome(point, seen, labels) for name, point in artefact.manifest.targets.items()},
    )
    if json_out is not None:
        path = Path(json_out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    show(evaluation_table(report))
    return report


def _target_outcome(point: CurvePoint, seen: Predictions, labels: Floats) -> TargetOutcome:
    goes = goes_large(seen.score, seen.ood, point.threshold)
    quality = float(np.where(goes, labels[:, 1], labels[:, 0]).mean())
    recovered = float(pgr(quality, labels))
    return TargetOutcome(
        promised_share=point.share,
        promised_pgr=point.lower,
        large_share=float(goes.mean()),
        quality=quality,
        pgr=recovered if np.isfinite(recovered) else None,
    )
