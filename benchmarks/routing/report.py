"""The figures of a run as a page."""

from collections.abc import Sequence

from benchmarks.routing.cascade import CascadeGain
from benchmarks.routing.overhead import Overhead
from benchmarks.routing.quality import Comparison
from benchmarks.routing.streams import Paired
from router_model.evaluation import Measured


def times_table(title: str, found: Sequence[Paired]) -> list[str]:
    """Times to the first token."""
    lines = [f"## Time to the first token, {title}", "", "Routed over by name, medians of pairs that alternate.", ""]
    lines += ["| request | by name, ms | routed, ms | ratio | 95 % | pairs |", "|---|---|---|---|---|---|"]
    for one in found:
        interval = f"{one.low:.3f} to {one.high:.3f}"
        lines.append(
            f"| {one.name} | {1000 * one.explicit_s:.2f} | {1000 * one.routed_s:.2f} | {one.ratio:.3f} | {interval} "
            f"| {one.n} |"
        )
    return [*lines, ""]


def overhead_lines(found: Overhead) -> list[str]:
    """What deciding takes."""
    return [
        "## Decisions",
        "",
        f"Beyond the prefill, by the server's clock, over {found.n} decisions: p50 {found.p50_ms:.2f} ms, "
        f"p90 {found.p90_ms:.2f} ms, p99 {found.p99_ms:.2f} ms; {found.early:.0%} were early.",
        "",
    ]


def comparison_table(title: str, note: str, found: Sequence[Comparison]) -> list[str]:
    """Points of exact match over rivals."""
    lines = [f"## {title}", "", note, "", "| ranking | over | mean of the cost axis | at 25 % | at 50 % | at 75 % |"]
    lines.append("|---|---|---|---|---|---|")
    for one in found:
        cells = " | ".join(points(each) for each in (one.over_axis, *one.at.values()))
        lines.append(f"| {one.name} | {one.rival} | {cells} |")
    return [*lines, ""]


def cascade_lines(found: CascadeGain) -> list[str]:
    """What the second chance is worth."""
    lines = [
        "## The second chance",
        "",
        "Points over the router alone at equal cost, mean of the cost axis: "
        f"{points(found.validation)} where failed answers go up, {points(found.confidence)} where unsure ones do, too.",
        "",
        "| at the threshold of `auto` | cost, of all large | exact match | small answers that went up |",
        "|---|---|---|---|",
    ]
    for name, (cost, quality, share) in found.at_auto.items():
        lines.append(f"| {name} | {cost:.1%} | {quality:.1%} | {share:.1%} |")
    return [*lines, ""]


def points(found: Measured) -> str:
    """A difference with its interval."""
    if found.value is None or found.lower is None or found.upper is None:
        return "unknown"
    return f"{found.value:+.1f} [{found.lower:+.1f}, {found.upper:+.1f}]"
