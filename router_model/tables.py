"""Reports as text for a terminal."""

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from router_model.commands import EvaluationReport, TrainReport
    from router_model.evaluation import Measured

WIDTH = 110


def training_table(report: "TrainReport") -> str:
    """What was trained, how well it does on held-out folds, and what each target promises."""
    metrics = report.metrics
    summary = (
        f"Router of kind {report.kind.value}, {report.n_rows} outcomes in {report.n_groups} groups; "
        f"small {metrics.small_quality:.3f}, large {metrics.large_quality:.3f}\n"
        f"held out: APGR {_number(metrics.apgr)}, CPT50 {_number(metrics.cpt50, 1)} %, "
        f"CPT80 {_number(metrics.cpt80, 1)} %, AUROC need {_number(metrics.auroc_need)}, "
        f"ECE small {metrics.ece_small:.3f}, large {metrics.ece_large:.3f}"
    )
    if not report.is_identified:
        summary += (
            "\nThe large model is not measurably better on these rows: targets are plain shares and promise no quality."
        )
    table = Table("target", "PGR wanted", "threshold", "large share", "PGR", "PGR, lower 95 %", title="Targets")
    for name, point in report.targets.items():
        values = (point.target, point.threshold, point.share, point.pgr, point.lower)
        table.add_row(name, *(_number(value) for value in values))
    return _rendered(summary, table, f"saved in {report.out_dir} as {report.artefact_hash[:12]}")


def evaluation_table(report: "EvaluationReport") -> str:
    """The router beside its baselines, its calibration, and what its targets did."""
    summary = (
        f"{report.data_file}: {report.n_rows} outcomes in {report.n_groups} groups; small {report.small_quality:.3f}, "
        f"large {report.large_quality:.3f}; {report.out_of_domain_share:.1%} out of domain"
    )
    routers = Table(
        "router", "APGR [95 %]", "router - this", "CPT50 %", "CPT80 %", "AUROC need [95 %]", title="Routing"
    )
    for name, quality in report.routers.items():
        over = report.apgr_over.get(name)
        routers.add_row(
            name,
            _interval(quality.apgr),
            "" if over is None else _interval(over),
            _number(quality.cpt50, 1),
            _number(quality.cpt80, 1),
            _interval(quality.auroc_need),
        )
    models = Table("probability", "ECE", "ECE, debiased", "Brier", title="Calibration")
    for name, one in (("p_small", report.calibration_small), ("p_large", report.calibration_large)):
        models.add_row(name, _number(one.ece), _number(one.ece_debiased), _number(one.brier))
    targets = Table("target", "share promised", "share", "PGR promised", "PGR", "quality", title="Targets")
    for name, outcome in report.targets.items():
        values = (outcome.promised_share, outcome.large_share, outcome.promised_pgr, outcome.pgr, outcome.quality)
        targets.add_row(name, *(_number(value) for value in values))
    return _rendered(summary, routers, models, targets)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(measured: "Measured") -> str:
    if measured.value is None or measured.lower is None or measured.upper is None:
        return _number(measured.value)
    return f"{measured.value:.3f} [{measured.lower:.3f}, {measured.upper:.3f}]"


def _rendered(*parts: RenderableType) -> str:
    console = Console(width=WIDTH, highlight=False, markup=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get().rstrip()
