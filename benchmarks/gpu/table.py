"""The results for people."""

from collections.abc import Iterator

from benchmarks.gpu.figures import Report, Section
from benchmarks.gpu.targets import verdicts

__all__ = ["lines", "short"]


def lines(report: Report, order: list[str]) -> Iterator[str]:
    """The table: sections in this order, ratios to transformers, targets."""
    for name in order:
        section = report.sections.get(name)
        if section is not None:
            yield from _section(name, section)
    ratios = list(_over_transformers(report))
    if ratios:
        yield "\ntokens/s over transformers'"
        yield from ratios
    judged = verdicts(report)
    if judged:
        yield "\ntargets"
        yield from (f"  {verdict}" for verdict in judged)
    if any(section.is_toy for section in report.sections.values()):
        yield "\nThese are toys: the figures mean nothing."


def short(commit: str) -> str:
    """A commit for people: its beginning, and the hash of changed sources."""
    head, plus, changes = commit.partition("+")
    return head[:10] + plus + changes


def _section(name: str, section: Section) -> Iterator[str]:
    toy = "toy, " if section.is_toy else ""
    bandwidth = section.copy_bytes_per_s / 1e9
    yield f"\n{name}  ({toy}{section.where['device']}, {short(section.commit)}, copies at {bandwidth:.0f} GB/s)"
    for figure in section.figures:
        beside = "  ".join(f"{key} {value:.3g}" for key, value in figure.beside.items())
        yield f"  {figure.name:30} {figure.value!s:>26} {figure.unit:10} {beside}"
    yield from (f"  left out: {what}" for what in section.left_out)
    if section.failure is not None:
        yield f"  failed: {section.failure}"


def _over_transformers(report: Report) -> Iterator[str]:
    for name, theirs in report.sections.items():
        shape = name.removeprefix("transformers-")
        for form in ("bf16", "int8"):
            ours = report.sections.get(f"decode-{shape}-{form}")
            if shape == name or ours is None:
                continue
            for figure in theirs.figures:
                mine = ours.figure(figure.name)
                if mine is not None:
                    ratio = mine.value.median / figure.value.median
                    yield f"  {shape} {form}, {figure.name:10} {ratio:.2f}"
