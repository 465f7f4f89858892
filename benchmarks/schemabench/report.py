"""The figures of all contenders side by side, ours against the best peer."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.schemabench.contender import Setting
from benchmarks.schemabench.tally import Group, Tally, percentiles

_TIMES = {
    "first mask, cold, CPU ms": ("cold_cpu_us", 1e3), "first mask, cold, wall ms": ("cold_us", 1e3),
    "compile again, CPU µs": ("cached_us", 1.0), "first mask again, CPU µs": ("cached_mask_us", 1.0),
    "mask µs": ("mask_us", 1.0), "advance µs": ("advance_us", 1.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a figure per contender, and which way is better (None: not to be compared)."""

    title: str
    value: Callable[[Tally], float | None]
    text: Callable[[Tally], str]
    better: Literal["more", "less"] | None


def table(results: dict[str, tuple[Setting, Tally]]) -> str:
    """The main table; the last columns are each of ours divided by the best peer that judged every row."""
    most = max((tally.whole.schemas for _, tally in results.values()), default=0)
    peers = [tally for setting, tally in results.values() if not setting.is_ours and tally.whole.schemas == most]
    ours = [(setting, tally) for setting, tally in results.values() if setting.is_ours]
    head = ["", *(setting.title for setting, _ in results.values())]
    head += [f"{setting.title} / best peer" for setting, _ in ours if peers]
    body = [head]
    for line in _lines():
        row = [line.title, *(line.text(tally) for _, tally in results.values())]
        row += [_ratio(line, tally, peers) for _, tally in ours if peers]
        body.append(row)
    return _aligned(body)


def groups_table(results: dict[str, tuple[Setting, Tally]], of: Callable[[Tally], dict[str, Group]], title: str) -> str:
    """Percent passing (and refused, loose, tight schemas) per data set or keyword."""
    sizes = {name: 0 for _, tally in results.values() for name in of(tally)}
    for name in sizes:
        sizes[name] = max(of(tally)[name].schemas for _, tally in results.values() if name in of(tally))
    body = [[f"{title}: % passing (refused, loose, tight)", "n", *(setting.title for setting, _ in results.values())]]
    for name, n in sorted(sizes.items(), key=lambda item: -item[1]):
        cells = [_group(of(tally).get(name)) for _, tally in results.values()]
        body.append([name, str(n), *cells])
    return _aligned(body)


def as_json(setting: Setting, tally: Tally) -> dict[str, Any]:
    """Everything about one contender, findings of ours included."""
    whole = {
        "title": setting.title, "separators": list(setting.separators), **asdict(tally.whole),
        "compiled": tally.compiled,
        "valid": tally.valid, "valid_refused": tally.valid_refused, "invalid": tally.invalid,
        "invalid_accepted": tally.invalid_accepted, "valid_refused_for": dict(tally.causes),
        "refused_for": dict(tally.refusals.most_common()), "backends": dict(tally.backends),
        "peak_bytes": tally.peak_bytes,
    }  # fmt: skip
    times = {name: percentiles(getattr(tally, name)) for name, _ in _TIMES.values()}
    by = {
        "by_dataset": {name: asdict(group) for name, group in sorted(tally.by_dataset.items())},
        "by_keyword": {name: asdict(group) for name, group in sorted(tally.by_keyword.items())},
    }
    return {**whole, **times, **by, **({"findings": tally.findings} if setting.is_ours else {})}


def _lines() -> list[Line]:
    lines = [
        _share("schemas passing", lambda t: t.whole.passing, lambda t: t.whole.schemas, "more"),
        _share("… without Synthesized", lambda t: _without(t)[0], lambda t: _without(t)[1], "more"),
        _share("schemas refused", lambda t: t.whole.refused, lambda t: t.whole.schemas, "less"),
        _share("schemas out of time", lambda t: t.whole.timeout, lambda t: t.whole.schemas, "less"),
        _share("schemas ended in an error", lambda t: t.whole.error, lambda t: t.whole.schemas, "less"),
        _share("invalid instances accepted", lambda t: t.invalid_accepted, lambda t: t.invalid, "less"),
        _share("valid instances refused", lambda t: t.valid_refused, lambda t: t.valid, "less"),
    ]
    lines += [_cause(cause) for cause in ("order", "number", "order and number", "assertion", "other")]
    lines.append(_count("instances judged rightly", lambda t: t.right, "more"))
    for title, (name, unit) in _TIMES.items():
        for rank in ("p50", "p95", "p99", "p99.9", "max"):
            lines.append(_time(f"{title} {rank}", name, rank, unit))
    return [*lines, _count("peak memory, MiB", lambda t: t.peak_bytes >> 20)]


def _share(
    title: str, count: Callable[[Tally], int], total: Callable[[Tally], int], better: Literal["more", "less"]
) -> Line:
    def value(tally: Tally) -> float | None:
        return 100 * count(tally) / total(tally) if total(tally) else None

    def text(tally: Tally) -> str:
        return f"{count(tally)} of {total(tally)} ({value(tally):.2f} %)" if total(tally) else "-"

    return Line(title, value, text, better)


def _count(title: str, count: Callable[[Tally], int], better: Literal["more", "less"] = "less") -> Line:
    return Line(title, count, lambda tally: str(count(tally)), better)


def _cause(cause: str) -> Line:
    """Of ours only: a peer's refusals are not looked into."""
    return Line(
        f"… for {cause}",
        lambda _: None,
        lambda tally: "-" if "unknown" in tally.causes else str(tally.causes[cause]),
        None,
    )


def _time(title: str, name: str, rank: str, unit: float) -> Line:
    def value(tally: Tally) -> float | None:
        found = percentiles(getattr(tally, name)).get(rank)
        return None if found is None else found / unit

    return Line(title, value, lambda tally: "-" if value(tally) is None else f"{value(tally):.2f}", "less")


def _without(tally: Tally) -> tuple[int, int]:
    """(passing, schemas) without the rows made from the drafts' suites about `not`, `if` and the like."""
    left = [group for name, group in tally.by_dataset.items() if name != "Synthesized"]
    return sum(group.passing for group in left), sum(group.schemas for group in left)


def _ratio(line: Line, ours: Tally, peers: list[Tally]) -> str:
    mine = line.value(ours)
    theirs = [value for value in map(line.value, peers) if value is not None]
    if mine is None or not theirs:
        return "-"
    best = max(theirs) if line.better == "more" else min(theirs)
    if best == 0:
        return "both 0" if mine == 0 else "peer 0"
    return f"{mine / best:.2f}"


def _group(group: Group | None) -> str:
    if group is None:
        return "-"
    failed = group.refused + group.timeout + group.error
    return f"{100 * group.passing / group.schemas:.0f} ({failed}, {group.loose}, {group.tight})"


def _aligned(body: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in body) for i in range(len(body[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in body
    ]
    return "\n".join(line.rstrip() for line in lines)
