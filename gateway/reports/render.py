"""The routing report as a table for people, as JSON, and as CSV."""

import csv
import io
from collections.abc import Iterator
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.reports.estimate import Saving
from gateway.reports.routing import Group, RoutingReport

Format = Literal["table", "json", "csv"]
# drafts: the share of drafted tokens that were accepted.
# e/u/p: escalated to the large model, decided without a promise that holds, decided early (before any prefill).
_COLUMNS = (
    *("requests", "share", "e/u/p", "prompt", "output", "drafts"),
    *("TTFT p50", "p95", "cost", "if all large", "saved"),
)


def render_report(report: RoutingReport, form: Format = "table", *, width: int = 150) -> str:
    """The report as text that ends with a line break. width: of the table, in characters."""
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
    if form == "csv":
        return _csv(report)
    return _table(report, width)


def _sections(report: RoutingReport) -> Iterator[tuple[str, Group]]:
    for group in report.by_model:
        yield "model", group
    yield "total", report.total
    for group in report.by_reason:
        yield "reason", group


def _csv(report: RoutingReport) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header: list[str] = []
    for section, group in _sections(report):
        fields = msgspec.structs.asdict(group)
        saving, quality = fields.pop("saving"), fields.pop("quality")
        columns: dict[str, object] = {"section": section, **fields}
        columns |= {_saving_column(name): value for name, value in msgspec.structs.asdict(saving).items()}
        columns |= {f"quality_{name}": value for name, value in msgspec.structs.asdict(quality).items()}
        if not header:
            header = list(columns)
            writer.writerow(header)
        writer.writerow(["" if columns[name] is None else columns[name] for name in header])
    writer.writerows(["note", note, *[""] * (len(header) - 2)] for note in report.notes)
    return buffer.getvalue()


def _saving_column(name: str) -> str:
    return f"saved_{name}" if name in ("share", "low", "high") else name


def _table(report: RoutingReport, width: int) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, highlight=False, markup=False)
    since = "the beginning" if report.since is None else f"{report.since:%Y-%m-%d %H:%M}"
    console.print(f"Routing from {since} to {report.until:%Y-%m-%d %H:%M} UTC")
    if not report.by_reason:
        console.print("No requests were answered in this period.")
        return buffer.getvalue()
    for title, groups in (("model", [*report.by_model, report.total]), ("reason", report.by_reason)):
        table = Table(title_justify="left", show_edge=False, pad_edge=False)
        table.add_column(title)
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        table.add_column("quality")
        for group in groups:
            table.add_row(*_cells(group), end_section=group in report.by_model[-1:])
        console.print()
        console.print(table)
    total = report.total
    console.print(
        f"\n{total.explored} explored; e/u/p: {total.escalated} escalated to the large model, {total.uncalibrated} "
        f"uncalibrated, {total.early} decided before any prefill."
    )
    for note in report.notes:
        console.print(f"- {note}")
    return buffer.getvalue()


def _cells(group: Group) -> list[str]:
    saving = group.saving
    return [
        group.name,
        f"{group.requests}",
        "–" if group.share is None else f"{group.share:.0%}",
        f"{group.escalated}/{group.uncalibrated}/{group.early}",
        f"{group.prompt_tokens}",
        f"{group.completion_tokens}",
        "–" if group.acceptance is None else f"{group.acceptance:.0%}",
        _milliseconds(group.ttft_p50_s),
        _milliseconds(group.ttft_p95_s),
        _usd(saving.cost_usd),
        _usd(saving.cost_if_large_usd),
        _saved(saving),
        group.quality.summary,
    ]


def _saved(saving: Saving) -> str:
    if saving.share is None:
        return "–"
    interval = "" if saving.low is None else f" [{saving.low:.0%}, {saving.high:.0%}]"
    return f"{saving.share:.0%}{interval}"


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"


def _usd(amount: float) -> str:
    """Small amounts keep three digits; the bundled pair's requests cost millionths."""
    return f"${amount:,.2f}" if abs(amount) >= 1 else f"${amount:.3g}"
