"""Reports as text for a terminal."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from router_model.commands import TrainReport
    from router_model.evaluation import Measured
    from router_model.evaluation_report import EvaluationReport, OffPolicy
    from router_model.policy_value import Valued
    from router_model.promises import Realised
    from router_model.thresholds import CurvePoint

WIDTH = 166


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
    return _rendered(summary, _promises(report.targets), f"saved in {report.out_dir} as {report.artefact_hash[:12]}")


def _promises(targets: "Mapping[str, CurvePoint]") -> Table:
    table = _new_table(
        "target", "PGR wanted", "threshold", "large share", "PGR", "PGR, lower", "of large, lower", title="Targets"
    )
    for name, point in targets.items():
        values = (point.target, point.threshold, point.share, point.pgr, point.lower, point.quality_lower)
        table.add_row(name, *(_number(value) for value in values))
    return table


def evaluation_table(report: "EvaluationReport") -> str:
    """The router beside its baselines, its calibration, what its targets did, and what a log says of it."""
    parts: list[RenderableType] = [
        f"{', '.join(report.data_files)}: {report.n_rows} outcomes in {report.n_groups} groups, {report.n_both} with "
        f"both models' scores (small {_number(report.small_quality)}, large {_number(report.large_quality)}); out of "
        f"domain {_interval(report.out_of_domain_share)}. Brackets are 95 % intervals over groups."
    ]
    if report.routers:
        parts += [_routing(report), *_left_out(report), _calibration(report), _targets(report)]
        parts += [*_unknown(report), _shares(report), *_drift(report)]
    elif report.calibration_small or report.calibration_large:
        parts.append(_calibration(report))
    if report.off_policy is not None:
        parts += _off_policy(report.off_policy)
    return _rendered(*parts)


def _routing(report: "EvaluationReport") -> Table:
    table = _new_table(
        *("router", "APGR", "router - this", "on RouteLLM's grid", "CPT50 %", "CPT80 %", "AUROC need"), title="Routing"
    )
    for name, quality in report.routers.items():
        over = report.apgr_over.get(name)
        table.add_row(
            name,
            _interval(quality.apgr),
            "" if over is None else _interval(over),
            _interval(quality.apgr_eleven),
            _interval(quality.cpt50, 1),
            _interval(quality.cpt80, 1),
            _interval(quality.auroc_need),
        )
    return table


def _left_out(report: "EvaluationReport") -> Iterator[str]:
    for name, why in report.left_out.items():
        yield f"Without {name}: {why}."


def _calibration(report: "EvaluationReport") -> Table:
    table = _new_table("probability", "ECE", "ECE beyond noise", "Brier", title="Calibration")
    several = (
        ("p_small", report.calibration_small),
        ("p_large", report.calibration_large),
        (f"answer right ({report.n_answers})", report.calibration_answer),
    )
    for name, one in several:
        if one is not None:
            table.add_row(name, _interval(one.ece), _interval(one.ece_debiased), _interval(one.brier))
    return table


def _targets(report: "EvaluationReport") -> Table:
    table = _new_table(
        *(
            "target",
            "wanted",
            "promised at",
            "by",
            "large share",
            "PGR",
            "of large",
            "over random",
            "covered",
            "status",
        ),
        title="Targets: by the threshold alone, and as served one after the other",
    )
    for name, one in report.targets.items():
        promise = f"{one.promised:.3f} at {one.promised_share:.0%}"
        fixed, served = _realised(one.fixed), _realised(one.served)
        table.add_row(name, f"{one.wanted:g} ({one.scale.value})", promise, "threshold", *fixed, "", "")
        table.add_row("", "", "", "served", *served, f"{one.calibrated_share:.0%}", one.status.value, end_section=True)
    return table


def _unknown(report: "EvaluationReport") -> Iterator[str]:
    """Why targets are not identifiable, each reason once."""
    reasons = dict.fromkeys(one.reason for one in report.targets.values() if one.reason is not None)
    for reason in reasons:
        names = ", ".join(name for name, one in report.targets.items() if one.reason == reason)
        yield f"Not identifiable ({names}): {reason}."


def _realised(one: "Realised") -> tuple[str, ...]:
    share = "–" if one.large_share.value is None else f"{one.large_share.value:.1%}"
    return share, _interval(one.pgr, 2), _number(one.of_large.value), _interval(one.over_random)


def _shares(report: "EvaluationReport") -> Table:
    table = _new_table(
        *("share wanted", "by the threshold", "kept: all rows", "first 500", "the others"), title="Large share"
    )
    for one in report.shares:
        cells = (one.fixed, one.controlled, one.controlled_at_500, one.controlled_after_500)
        table.add_row(f"{one.wanted:.0%}", *("–" if cell is None else f"{cell:.1%}" for cell in cells))
    return table


def _drift(report: "EvaluationReport") -> Iterator[str]:
    if report.drift is not None:
        by_requests, by_grades = (
            ", ".join(reasons) or "nothing" for reasons in (report.drift.by_requests, report.drift.by_grades)
        )
        yield f"Drift: of the requests alone {by_requests} alarms; with every grade told, {by_grades}."


def _off_policy(log: "OffPolicy") -> Iterator[RenderableType]:
    table = _new_table(
        *("policy", "large share", "DR", "SNIPS", "less as logged", "ESS"),
        title=f"Mean score on the log: {log.n - log.fixed} of {log.n} decisions that could have gone the other way",
    )
    refusals = []
    for one in log.policies:
        share = "–" if one.large_share is None else f"{one.large_share:.1%}"
        if one.refused is not None:
            table.add_row(one.policy, share, "refused")
            refusals.append(f"{one.policy}: {one.refused}.")
            continue
        ess = "–" if one.ess is None else f"{one.ess:.0f}"
        table.add_row(one.policy, share, _valued(one.dr), _valued(one.snips), _valued(one.over_logging), ess)
    yield table
    yield from refusals


def _new_table(*columns: str, title: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _valued(one: "Valued | None") -> str:
    return "–" if one is None else f"{one.value:.3f} [{one.lower:.3f}, {one.upper:.3f}]"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(measured: "Measured", digits: int = 3) -> str:
    if measured.value is None or measured.lower is None or measured.upper is None:
        return _number(measured.value, digits)
    return f"{measured.value:.{digits}f} [{measured.lower:.{digits}f}, {measured.upper:.{digits}f}]"


def _rendered(*parts: RenderableType) -> str:
    console = Console(width=WIDTH, highlight=False, markup=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get().rstrip()
