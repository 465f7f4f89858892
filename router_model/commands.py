"""What the commands of `pointsman router` do, as functions."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from router_model.artefact import RouterArtefact, TrainingMetrics
from router_model.bundle import bundle
from router_model.candidates import Candidate
from router_model.embedding import SentenceEncoder
from router_model.evaluation_report import EvaluationReport, Rows, evaluation_report
from router_model.features import Embed, Kind, extract_outcome
from router_model.outcomes import OutcomeError, read_outcomes
from router_model.tables import evaluation_table, training_table
from router_model.thresholds import CurvePoint
from router_model.training import TrainingOptions
from router_model.training import train as train_router

Show = Callable[[str], None]


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


def train(
    data_files: Sequence[Path | str],
    out_dir: Path | str,
    *,
    small_model: str = "",
    large_model: str = "",
    embedding_model: Path | str | None = None,
    seed: int = 0,
    show: Show = print,
) -> TrainReport:
    """Train a router on outcome files (.jsonl, .jsonl.gz) and save its artefact into `out_dir`.

    small_model, large_model: fingerprints of the pair that made the outcomes; the gateway uses an artefact only with
    that pair. embedding_model: folder of a sentence encoder, whose embeddings the router then reads instead of states
    and texts; the gateway needs the same. show: gets the table to print. OutcomeError: a malformed row, with file and
    line. ValueError: too few rows, states on some rows only, or no encoder in that folder.
    """
    outcomes = read_outcomes(data_files)
    trained = train_router(outcomes, TrainingOptions(seed=seed), _encoder(embedding_model))
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
    data_files: Sequence[Path | str],
    json_out: Path | str | None = None,
    *,
    train_files: Sequence[Path | str] = (),
    data_names: Sequence[str] | None = None,
    candidates: Sequence[Candidate] = (),
    embedding_model: Path | str | None = None,
    seed: int = 0,
    show: Show = print,
) -> EvaluationReport:
    """Score a saved router on files of outcomes; rows it was trained on flatter it, so give it others.

    train_files: what it was trained on, to fit the baselines that need training rows (nearest neighbours, subject).
    data_names: what the report calls the files, where their names say nothing; None is by their names.
    candidates: policies to value on the rows of a log, beside the standard ones; targets, qualities and costs are asked
    of this router. embedding_model: the sentence encoder of a router that reads embeddings. json_out: where to write
    the report as JSON. show: gets the tables to print.

    ArtefactError: no usable artefact. OutcomeError: a malformed row, or no rows to score. ValueError: rows without the
    prefill state that the router reads, or a wish that it cannot answer.
    """
    artefact = RouterArtefact.load(artefact_dir)
    embed = _encoder(embedding_model)
    rows = _rows(artefact, data_files, embed)
    train_rows = _rows(artefact, train_files, embed) if train_files else None
    names = [str(path) for path in data_files] if data_names is None else data_names
    report = evaluation_report(rows, train_rows, data_files=names, candidates=candidates, seed=seed)
    if json_out is not None:
        _write_json(json_out, report)
    show(evaluation_table(report))
    return report


def _encoder(folder: Path | str | None) -> Embed | None:
    return None if folder is None else SentenceEncoder.load(folder)


def _rows(artefact: RouterArtefact, files: Sequence[Path | str], embed: Embed | None) -> Rows:
    outcomes = read_outcomes(files)
    if not outcomes:
        raise OutcomeError(f"{', '.join(str(path) for path in files)} holds no rows")
    return Rows(artefact, outcomes, [extract_outcome(one, artefact.kind, embed) for one in outcomes])


def _write_json(path: Path | str, report: msgspec.Struct) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
