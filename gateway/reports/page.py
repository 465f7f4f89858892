"""The router's report as one page of HTML: no script, nothing fetched, every text of a client or operator escaped."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from gateway.reports.comparison import Comparison
from gateway.reports.curve import Curve, Point
from gateway.reports.mix import Part
from gateway.reports.reliability import Reliability
from gateway.reports.router_report import RouterReport
from gateway.reports.speed import Quantiles
from gateway.reports.svg import Chart
from router_model.policy_value import PolicyValue, Valued

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}h3{font-size:1rem;margin:1rem 0 0}
div{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0 1rem}
th,td{padding:.2rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}
th:first-child,td:first-child,td.text{text-align:left}td.text{white-space:normal;min-width:20rem}
th{font-weight:600}svg{max-width:560px;width:100%;height:auto}.note{color:#555}
.axis,.bar{fill:none;stroke:#777}.curve{fill:none;stroke:#1f5fa8;stroke-width:2}
.random,.ideal{fill:none;stroke:#999;stroke-dasharray:5 4}
.band{fill:#1f5fa8;opacity:.15}.dot{fill:#b3471d}.label,.tick,.title{font-size:11px;fill:#333}
.label{paint-order:stroke;stroke:#fff;stroke-width:3px}
"""


def render_page(report: RouterReport) -> str:
    """The whole document."""
    since = "the beginning" if report.since is None else f"{report.since:%Y-%m-%d %H:%M}"
    title = f"Routing from {since} to {report.until:%Y-%m-%d %H:%M} UTC"
    sections = (
        f"<h1>{escape(title)}</h1>",
        _paragraph(
            f"{report.scope}: {report.requests} answered requests, {report.routed} of them routed; {report.graded} "
            f"answers graded, {report.pairs} pairs with both models graded. Prices: {report.price_version}."
        ),
        _state(report),
        _section("Cost and quality", _curve(report.curve)),
        _section("What routing saved, and what it cost in quality", _comparisons(report.comparisons)),
        _section("Who answered", *(_mix(name, parts) for name, parts in _views(report))),
        _section("Escalations", _escalations(report)),
        _section("Do the probabilities mean what they say?", *map(_reliability, report.reliability)),
        _section("Thresholds", _thresholds(report)),
        _section("Exploration", _exploration(report)),
        _section("Speed", _speed(report)),
        _section("Other policies", _policies(report)),
        *(_paragraph(note) for note in (*report.notes, *report.routing.notes)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style></head><body>\n'
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<h2>{escape(title)}</h2>{''.join(parts)}"


def _paragraph(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Where a row is shorter than the head, its last cell is a text that takes the place of what is not there."""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{_cells(row, len(head))}</tr>" for row in rows)
    return f"<div><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def _cells(row: Sequence[str], n: int) -> str:
    cells = [f"<td>{escape(cell)}</td>" for cell in row]
    if len(row) < n:
        cells[-1] = f'<td class="text" colspan="{n - len(row) + 1}">{escape(row[-1])}</td>'
    return "".join(cells)


def _state(report: RouterReport) -> str:
    state = report.state
    router = state.policy if state.artefact_hash is None else f"{state.policy} ({state.artefact_hash[:12]})"
    promise = f"uncalibrated ({'; '.join(map(_drift, state.drift))})" if state.drift else "no drift is known"
    return _paragraph(
        f"Deciding now: {router}, {promise}. Of the routed requests {_percent(state.uncalibrated_share)} were decided "
        f"without a promise that holds, {_percent(state.far_share)} were unlike the training data."
    )


def _drift(reason: str) -> str:
    """One of `router_model.drift`'s reasons in words."""
    kind, _, route = reason.partition(":")
    if kind == "shift":
        return (
            f"requests of the route {route} are not like those of the evidence"
            if route
            else ("requests are not like those of the evidence")
        )
    if kind == "out_of_domain":
        return "many requests are unlike the training data"
    return f"the {kind.removeprefix('calibration_')} model's answers are not as good, or as bad, as predicted"


def _curve(curve: Curve) -> str:
    marks = {
        "all small": curve.all_small,
        "all large": curve.all_large,
        "random": curve.random,
        "oracle": curve.oracle,
        "router": curve.current,
    }
    known = {name: point for name, point in marks.items() if point is not None}
    if curve.source is None or not known:
        return _paragraph(f"Not known: {curve.note}")
    every = [*known.values(), *curve.points]
    chart = Chart(
        [point.cost_usd * 1e3 for point in every],
        [bound for point in every for bound in (point.lower, point.upper)],
        x_title="USD per 1,000 requests",
        y_title="mean score",
        title="Cost and quality",
    )
    if curve.all_small and curve.all_large:
        chart.line([_xy(curve.all_small), _xy(curve.all_large)], style="random")
    if curve.points:
        xs = [point.cost_usd * 1e3 for point in curve.points]
        chart.band(xs, [point.lower for point in curve.points], [point.upper for point in curve.points])
        chart.line([_xy(point) for point in curve.points], style="curve")
    for name, point in known.items():
        chart.mark(_xy(point), name, lower=point.lower, upper=point.upper)
    rows = [
        (name, f"{point.large_share:.0%}", f"{point.cost_usd * 1e3:.4g}", _interval(point.quality, point))
        for name, point in known.items()
    ]
    source = "pairs that both models answered" if curve.source == "shadow_pairs" else "explored requests"
    return (
        chart.svg()
        + _table(("policy", "large share", "USD per 1,000", "mean score [95 %]"), rows)
        + _paragraph(f"From {curve.n} {source}; the band and the bars are 95 % intervals, the dashes are random mixes.")
    )


def _xy(point: Point) -> tuple[float, float]:
    return point.cost_usd * 1e3, point.quality


def _comparisons(several: Sequence[Comparison]) -> str:
    names = {"all_large": "the large model alone", "matched_random": "random at the same share"}
    rows = []
    for one in several:
        saving = one.saving
        known = saving.share is not None and saving.low is not None and saving.high is not None
        share = f"{saving.share:.1%} [{saving.low:.1%}, {saving.high:.1%}]" if known else _percent(saving.share)
        row = [names.get(one.against, one.against), _usd(saving.saved_usd), share]
        if one.quality_difference is None:
            rows.append([*row, one.quality_note or "unknown"])
        else:
            source = "pairs" if one.quality_source == "shadow_pairs" else "exploration"
            rows.append([*row, _valued(one.quality_difference, signed=True), source])
    head = ("against", "saved USD", "share of its cost [95 %]", "mean score, router less it [95 %]", "known from")
    return _table(head, rows)


def _views(report: RouterReport) -> tuple[tuple[str, list[Part]], ...]:
    mix = report.mix
    return ("route", mix.by_route), ("reason", mix.by_reason), ("key", mix.by_key), ("time", mix.by_hour)


def _mix(name: str, parts: Sequence[Part]) -> str:
    head = (name, "requests", "large", "escalated", "explored", "uncalibrated", "cost USD", "if all large")
    return _table(
        head,
        (
            (
                _hour(part.name) if name == "time" else part.name,
                str(part.requests),
                _percent(part.large_share),
                str(part.escalated),
                str(part.explored),
                str(part.uncalibrated),
                _usd(part.cost_usd),
                _usd(part.cost_if_large_usd),
            )
            for part in parts
        ),
    )


def _hour(name: str) -> str:
    """The beginning of a stretch of time, as the other tables have it; `(others)` stays."""
    try:
        return f"{datetime.fromisoformat(name):%Y-%m-%d %H:%M}"
    except ValueError:
        return name


def _escalations(report: RouterReport) -> str:
    one = report.escalations
    rows = [(reason, str(n), "escalated") for reason, n in one.by_reason.items()]
    rows += [(reason, str(n), "not escalated") for reason, n in one.prevented.items()]
    text = f"{one.escalated} of {one.small} requests decided for the small model ({_percent(one.rate)})."
    return _paragraph(text) + (_table(("reason", "requests", ""), rows) if rows else "")


def _reliability(one: Reliability) -> str:
    if not one.bins:
        return _paragraph(f"{one.model}: {one.n} graded answers are too few to say.")
    chart = Chart(
        [0, 1], [0, 1], x_title="predicted", y_title="observed", title=f"Reliability of the {one.model} model's scores"
    )
    chart.line([(0, 0), (1, 1)], style="ideal")
    chart.line([(each.predicted, each.observed) for each in one.bins], style="curve")
    for each in one.bins:
        low, high = max(each.observed - 2 * each.error, 0), min(each.observed + 2 * each.error, 1)
        chart.mark((each.predicted, each.observed), lower=low, upper=high)
    return (
        f"<h3>{escape(one.model)}</h3>"
        + chart.svg()
        + _paragraph(
            f"{one.n} graded answers; calibration error {_number(one.ece)} ({_number(one.ece_debiased)} "
            f"beyond what noise gives), Brier score {_number(one.brier)}."
        )
    )


def _thresholds(report: RouterReport) -> str:
    head = ("from", "target", "requests", "threshold", "large share", "calibrated")
    return _table(
        head,
        (
            (
                f"{one.start:%Y-%m-%d %H:%M}",
                one.target,
                str(one.requests),
                f"{one.threshold:.4f}",
                f"{one.large_share:.1%}",
                f"{one.calibrated_share:.1%}",
            )
            for one in report.thresholds
        ),
    )


def _exploration(report: RouterReport) -> str:
    one = report.exploration
    extra = f"{_usd(abs(one.extra_cost_usd))} USD {'less' if one.extra_cost_usd < 0 else 'more'}"
    return _paragraph(
        f"{one.explored} requests ({_percent(one.share)}) took the other model to learn from. They cost {extra} than "
        f"without, and were expected to lower the mean score of all routed requests by {one.expected_score_lost:.4f}."
    )


def _speed(report: RouterReport) -> str:
    rows = []
    for one in report.speed:
        cells = [cell for part in (one.ttft, one.itl, one.duration) for cell in (_ms(part.p50_s), _ms(part.p95_s))]
        rows.append((one.model, *cells, _percent(one.cached_share), _percent(one.draft_accept_rate)))
    head = ("model", "TTFT p50", "p95", "ITL p50", "p95", "whole p50", "p95", "prompt cached", "drafts accepted")
    return _table(head, rows) + _overhead(report.overhead)


def _overhead(one: Quantiles) -> str:
    return _paragraph(f"Deciding itself, without the prefill: p50 {_ms(one.p50_s)}, p99 {_ms(one.p99_s)}.")


def _policies(report: RouterReport) -> str:
    other = report.other_policies
    table = _table(
        ("policy", "large share", "DR [95 %]", "SNIPS [95 %]", "less as logged [95 %]", "ESS"),
        (_policy(one) for one in other.policies),
    )
    return table + _paragraph(
        f"Mean score over {other.graded} graded requests of {other.requests} that could have gone the other way; "
        f"{other.fixed} could not and are left out."
    )


def _policy(one: PolicyValue) -> tuple[str, ...]:
    if one.refused is not None:
        return one.policy, _percent(one.large_share), one.refused
    return (
        one.policy,
        _percent(one.large_share),
        _valued(one.dr),
        _valued(one.snips),
        _valued(one.over_logging, signed=True),
        "–" if one.ess is None else f"{one.ess:.0f}",
    )


def _valued(one: Valued | None, *, signed: bool = False) -> str:
    if one is None:
        return "–"
    sign = "+" if signed else ""
    return f"{one.value:{sign}.3f} [{one.lower:{sign}.3f}, {one.upper:{sign}.3f}]"


def _interval(value: float, point: Point) -> str:
    return f"{value:.3f} [{point.lower:.3f}, {point.upper:.3f}]"


def _usd(amount: float) -> str:
    """Three digits that count, never with an exponent: the bundled pair's requests cost millionths."""
    digits = 0 if amount == 0 else math.floor(math.log10(abs(amount)))
    return f"{amount:.{min(max(2 - digits, 2), 12)}f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.3g} ms"
