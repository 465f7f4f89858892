"""What a run of the fuzz found."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.schemabench.process import Killed
from tests.grammars.fuzz.cases import Case
from tests.grammars.fuzz.judge import Outcome

_PRINTED: Final = 20


@dataclass(slots=True)
class Report:
    """Counts per kind, and every finding with its case."""

    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0

    @property
    def is_bad(self) -> bool:
        """Something was found that breaks the promise; what two validators dispute is for a person to judge."""
        return any(finding["kind"] != "disputed" for finding in self.findings)

    def add(self, case: Case, outcome: Outcome | Killed) -> None:
        """Count an outcome."""
        if isinstance(outcome, Killed):
            self.outcomes[f"{case.kind} killed"] += 1
            self._find(case, "killed", outcome.cause, "")
            return
        self.outcomes[f"{case.kind} {outcome.status}"] += 1
        if outcome.status == "refused":
            self.refusals[outcome.keyword] += 1
        self.counts += outcome.counts
        self.slowest_s = max(self.slowest_s, outcome.cpu_s)
        self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
        for finding in outcome.findings:
            self._find(case, finding.kind, finding.detail, outcome.text)

    def _find(self, case: Case, kind: str, detail: str, text: str) -> None:
        self.findings.append({"case": f"{case.kind}:{case.index}", "kind": kind, "detail": detail, "constraint": text})
        if sum(finding["kind"] == kind for finding in self.findings) > _PRINTED:
            return  # all of them are in the state file
        print(
            f"FOUND {kind}: --seed {case.seed} --only {case.kind}:{case.index}\n  {detail}\n  {text[:600]}", flush=True
        )

    def text(self, n: int, seconds: float) -> str:
        """The summary."""
        kinds = Counter(finding["kind"] for finding in self.findings)
        slowest = f"slowest compilation {self.slowest_s:.1f} s, peak {self.peak_bytes >> 20} MiB"
        lines = [f"{n} cases with seed {self.seed} in {seconds:.0f} s; {slowest}"]
        lines += [f"  {name}: {count}" for name, count in sorted(self.outcomes.items())]
        lines.append(f"refused for {dict(self.refusals.most_common())}")
        lines.append(f"walks {dict(self.counts.most_common())}")
        lines.append(f"found {dict(kinds)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "outcomes": self.outcomes, "refusals": self.refusals, "counts": self.counts, "findings": self.findings,
            "slowest_s": self.slowest_s, "peak_bytes": self.peak_bytes,
        }  # fmt: skip

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from `as_json`."""
        self.outcomes, self.refusals, self.counts = (
            Counter(saved[name]) for name in ("outcomes", "refusals", "counts")
        )
        self.findings, self.slowest_s, self.peak_bytes = saved["findings"], saved["slowest_s"], saved["peak_bytes"]
