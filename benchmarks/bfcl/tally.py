"""Judged answers added up: by category, by the number of tools, by mistake, with times and tokens."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.bfcl.ast_rules import Finding, Mistake, judge
from benchmarks.bfcl.client import Reply
from benchmarks.bfcl.rows import Category, Row
from benchmarks.timing import percentile
from bundled_models.share import Share


@dataclass(frozen=True, slots=True)
class Judged:
    """A row, its reply, and the mistake in it (None: right)."""

    row: Row
    reply: Reply
    finding: Finding | None

    @classmethod
    def of(cls, row: Row, reply: Reply) -> "Judged":
        """A row without an answer is wrong, where nothing is to be called, too."""
        return cls(row, reply, reply.failure or judge(row, list(reply.calls)))

    @property
    def is_right(self) -> bool:
        """Whether there is no mistake in it."""
        return self.finding is None


@dataclass(slots=True)
class Tally:
    """All rows that were asked."""

    judged: list[Judged] = field(default_factory=list)

    def add(self, row: Row, reply: Reply) -> None:
        """Judge and keep one reply."""
        self.judged.append(Judged.of(row, reply))

    @property
    def by_category(self) -> dict[Category, Share]:
        """Share of right answers, in the order in which categories came."""
        names = dict.fromkeys(each.row.category for each in self.judged)
        return {n: Share.of([each.is_right for each in self.judged if each.row.category == n]) for n in names}

    @property
    def by_tools(self) -> dict[int, Share]:
        """Share of right answers by how many tools were offered."""
        counts = sorted({len(each.row.functions) for each in self.judged})
        return {n: Share.of([each.is_right for each in self.judged if len(each.row.functions) == n]) for n in counts}

    @property
    def of_rows(self) -> Share:
        """Every row counts the same."""
        return Share.of([each.is_right for each in self.judged])

    @property
    def of_categories(self) -> float:
        """Every category counts the same."""
        shares = self.by_category.values()
        return sum(share.share for share in shares) / len(shares) if shares else 0.0

    @property
    def mistakes(self) -> dict[Category, Counter[Mistake]]:
        """How often each mistake was made, by category."""
        return {
            name: Counter(e.finding.mistake for e in self.judged if e.finding and e.row.category == name)
            for name in self.by_category
        }

    @property
    def failures(self) -> int:
        """Rows that the server did not answer."""
        return sum(1 for each in self.judged if each.reply.failure is not None)

    @property
    def half_calls(self) -> int:
        """Rows that are right because a call was unreadable where nothing was to be called."""
        return sum(
            1 for each in self.judged if each.is_right and each.row.category == "irrelevance" and each.reply.calls
        )

    def latency_ms(self) -> dict[str, float]:
        """p50 and p95 of the answers; empty without any."""
        times = [1000 * each.reply.latency_s for each in self.judged if each.reply.failure is None]
        return {name: round(percentile(times, share), 1) for name, share in (("p50", 0.5), ("p95", 0.95)) if times}

    def as_json(self) -> dict[str, Any]:
        """All figures, and which row had which mistake; no text of the data."""
        replies = [each.reply for each in self.judged]
        return {
            "rows": asdict(self.of_rows),
            "mean_of_categories": self.of_categories,
            "by_category": {name: asdict(share) for name, share in self.by_category.items()},
            "by_tools": {str(count): asdict(share) for count, share in self.by_tools.items()},
            "mistakes": {
                category: dict(sorted(((kind.value, n) for kind, n in counts.items())))
                for category, counts in self.mistakes.items()
            },
            "latency_ms": self.latency_ms(),
            "prompt_tokens": sum(reply.prompt_tokens or 0 for reply in replies),
            "completion_tokens": sum(reply.completion_tokens or 0 for reply in replies),
            "cut_answers": sum(reply.is_cut for reply in replies),
            "right_by_unreadable_call": self.half_calls,
            "retries": sum(reply.retries for reply in replies),
            "unanswered": self.failures,
            "wrong": {e.row.id: e.finding.mistake.value for e in self.judged if e.finding},
        }
