"""Verdicts added up: per contender, per data set, per keyword."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.schemabench.judge import Verdict
from benchmarks.schemabench.process import Killed
from benchmarks.schemabench.rows import Row


@dataclass(slots=True)
class Group:
    """Counts over some schemas. A schema passes when it compiles and no instance is judged wrongly."""

    schemas: int = 0
    passing: int = 0
    refused: int = 0
    timeout: int = 0
    error: int = 0
    loose: int = 0
    tight: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one schema."""
        self.schemas += 1
        self.refused += verdict.status == "refused"
        self.timeout += verdict.status == "timeout"
        self.error += verdict.status == "error"
        self.loose += bool(verdict.accepted)
        self.tight += bool(verdict.refused)
        self.passing += verdict.status == "compiled" and not verdict.accepted and not verdict.refused


@dataclass(slots=True)
class Tally:
    """All verdicts of one contender. Times in microseconds."""

    whole: Group = field(default_factory=Group)
    by_dataset: dict[str, Group] = field(default_factory=dict)
    by_keyword: dict[str, Group] = field(default_factory=dict)
    valid: int = 0
    valid_refused: int = 0
    invalid: int = 0
    invalid_accepted: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    backends: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    cold_cpu_us: list[float] = field(default_factory=list)
    cold_us: list[float] = field(default_factory=list)
    cached_us: list[float] = field(default_factory=list)
    cached_mask_us: list[float] = field(default_factory=list)
    mask_us: list[float] = field(default_factory=list)
    advance_us: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def compiled(self) -> int:
        """Schemas held."""
        return self.whole.schemas - self.whole.refused - self.whole.timeout - self.whole.error

    @property
    def right(self) -> int:
        """Instances of compiled schemas that were judged rightly."""
        return self.valid - self.valid_refused + self.invalid - self.invalid_accepted

    def add(self, row: Row, outcome: Verdict | Killed) -> None:
        """Count a verdict; a killed process is out of time when it was its processor's, otherwise an error."""
        if isinstance(outcome, Killed):
            status = "timeout" if outcome.cause == "cpu" else "error"
            outcome = Verdict(status, reason=f"the process was ended: {outcome.cause}")  # type: ignore[arg-type]
        self.whole.add(outcome)
        self.by_dataset.setdefault(row.dataset, Group()).add(outcome)
        for keyword in row.keywords:
            self.by_keyword.setdefault(keyword, Group()).add(outcome)
        self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
        if outcome.status != "compiled":
            if outcome.status == "refused" and outcome.keyword:
                self.refusals[outcome.keyword] += 1
            self.findings.append({"id": row.name, outcome.status: f"{outcome.keyword} {outcome.reason}".strip()})
            return
        self.backends[outcome.backend] += 1
        self.valid += outcome.n_valid
        self.invalid += outcome.n_invalid
        self.valid_refused += len(outcome.refused)
        self.invalid_accepted += len(outcome.accepted)
        for name in ("cold_cpu_us", "cold_us", "cached_us", "cached_mask_us"):
            getattr(self, name).append(getattr(outcome, name))
        self.mask_us += outcome.mask_us
        self.advance_us += outcome.advance_us
        for cause, text in outcome.refused:
            self.causes[cause] += 1
            self.findings.append({"id": row.name, "valid": True, "accepted": False, "cause": cause, "text": text})
        self.findings += [{"id": row.name, "valid": False, "accepted": True, "text": text} for text in outcome.accepted]


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p95, p99, p99.9 and the largest (nearest rank); empty without values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    ranks = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
    found = {name: ordered[round(rank * (len(ordered) - 1))] for name, rank in ranks.items()} | {"max": ordered[-1]}
    return {name: round(value, 3) for name, value in found.items()}
