"""A line of the results, with what it is to reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.speculation.comparison import Comparison

__all__ = ["Given", "Row", "Target"]


@dataclass(frozen=True, slots=True)
class Given:
    """What the command was given. runs: turns of every job. is_quick: as little as shows that it works. is_adaptive:
    whether drafts may rest where they cost more than they save, see SpeculationConfig."""

    runs: int
    threads: int | None = None
    is_quick: bool = False
    is_adaptive: bool = True

    def n(self, full: int, quick: int = 2) -> int:
        """A count: in full, or for a quick try."""
        return quick if self.is_quick else full


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure of a row is to reach."""

    what: str
    value: float
    at_least: float

    def __str__(self) -> str:
        return f"{self.what} {self.value:.3f}: {'reaches' if self.is_met else 'MISSES'} {self.at_least}"

    @property
    def is_met(self) -> bool:
        """Whether it does."""
        return self.value >= self.at_least


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a part. numbers: what is beside the comparison, or instead of one."""

    name: str
    comparison: Comparison | None = None
    targets: tuple[Target, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
