"""From the contestants' answers to the table and the ratios."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.checkpoints import Shape
from benchmarks.peers.roster import Entry
from benchmarks.timing import Spread

RATES = ("decode", "prefill", "batch")
DURATIONS = ("shared_cold", "shared_warm", "unshared")
STRUCTURED = (1, 8)


@dataclass(slots=True)
class Record:
    """What one contestant answered. seconds: by figure, one value per round. answers: first tokens by task, one list
    per round. skipped: why it took no part, or stopped. errors: by task."""

    load_s: float | None = None
    peak_bytes: int | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, list[list[int]]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    def add(self, task: str, answer: dict[str, Any]) -> None:
        """One answer of tasks.py."""
        if "error" in answer:
            self.errors[task] = answer["error"]
            return
        for name, value in answer.items():
            if name == "answer":
                self.answers.setdefault(task, []).append(value)
            elif name != "left_out":
                self.seconds.setdefault(name, []).append(value)

    def agreement(self, other: "Record") -> float | None:
        """Share of first tokens on which both agree (None where they have no task in common)."""
        pairs = [
            (mine, theirs)
            for task in self.answers.keys() & other.answers.keys()
            for my_round, their_round in zip(self.answers[task], other.answers[task], strict=False)
            for mine, theirs in zip(my_round, their_round, strict=True)
        ]
        return sum(mine == theirs for mine, theirs in pairs) / len(pairs) if pairs else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster ours is than the fastest peer: the peer's seconds over ours, round by round."""

    ours: str
    peer: str
    spread: Spread


def ratios(entries: Sequence[Entry], records: dict[str, Record]) -> dict[str, Ratio]:
    """For each of our contestants and each figure, as `NAME FIGURE`. The fastest peer is the one of least median."""
    found = {}
    for ours in (entry.name for entry in entries if entry.is_ours):
        for figure, mine in records[ours].seconds.items():
            peers = [entry.name for entry in entries if not entry.is_ours and records[entry.name].seconds.get(figure)]
            if not peers or figure.startswith("free"):
                continue
            peer = min(peers, key=lambda name: Spread.of(records[name].seconds[figure]).median)
            theirs = records[peer].seconds[figure]
            spread = Spread.of([b / a for a, b in zip(mine, theirs, strict=False)])
            found[f"{ours} {figure}"] = Ratio(ours, peer, spread)
    return found


def table(
    entries: Sequence[Entry],
    records: dict[str, Record],
    shape: Shape,
    bandwidth: Spread,
    compared: dict[str, Ratio],
) -> str:
    """Medians [lowest, highest] for reading, one block per contestant, then the ratios."""
    ours = next((records[entry.name] for entry in entries if entry.is_ours), None)
    lines = [f"memory is read at {bandwidth.median / 1e9:.1f} GB/s"]
    for entry in entries:
        record = records[entry.name]
        lines += [f"{entry.name}" + (f": skipped, {record.skipped}" if record.skipped else "")]
        lines += [f"    {line}" for line in _lines(entry, record, shape, bandwidth, ours)]
    if compared:
        lines.append("times faster than the fastest peer of the same precision")
    lines += [f"    {name:34} {ratio.spread!s:24} {ratio.peer}" for name, ratio in compared.items()]
    return "\n".join(lines)


def _lines(entry: Entry, record: Record, shape: Shape, bandwidth: Spread, ours: Record | None) -> list[str]:
    """One line per figure."""
    seconds = record.seconds
    lines = [f"{figure:12} {_rates(seconds[figure])} tokens/s" for figure in RATES if figure in seconds]
    if "decode" in seconds:
        share = entry.bytes_per_token(shape) / Spread.of(seconds["decode"]).median / bandwidth.median
        lines[0] += f", {share:.0%} of the bandwidth"
    lines += [f"{figure:12} {Spread.of(seconds[figure])} s" for figure in DURATIONS if figure in seconds]
    for n in STRUCTURED:
        if f"json_{n}" in seconds:
            costs = [free / json for free, json in zip(seconds[f"free_{n}"], seconds[f"json_{n}"], strict=True)]
            lines.append(f"{f'json_{n}':12} {_rates(seconds[f'json_{n}'])} tokens/s, {Spread.of(costs)} x free")
    if record.load_s is not None and record.peak_bytes:
        lines.append(f"{'load, peak':12} {record.load_s:.1f} s, {record.peak_bytes / 2**30:.2f} GiB")
    if ours is not None and not entry.is_ours and (agreement := record.agreement(ours)) is not None:
        lines.append(f"{'agreement':12} {agreement:.0%} of first tokens as ours")
    return lines + [f"{task:12} failed: {error}" for task, error in record.errors.items()]


def _rates(seconds: Sequence[float]) -> Spread:
    """Per second."""
    return Spread.of([1 / value for value in seconds])
