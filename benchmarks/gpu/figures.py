"""Results as they lie in the file: figures of sections, each with the device and the commit that it was measured at."""

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.timing import Spread

__all__ = ["Figure", "Report", "Section"]


class Figure(msgspec.Struct, frozen=True):
    """One measurement. beside: what it is worth by other measures, as ratios or in units that the names tell."""

    name: str
    value: Spread
    unit: str
    beside: dict[str, float] = {}


class Section(msgspec.Struct, frozen=True):
    """What one section found. where: device, driver, versions. copy_bytes_per_s: measured just before it, bytes read
    plus bytes written. seconds: what the section took. left_out: what was not measured, and why. failure: why it ended
    early, None where it did not."""

    where: dict[str, Any]
    commit: str
    is_toy: bool
    copy_bytes_per_s: float
    seconds: float
    figures: list[Figure]
    left_out: list[str] = []
    failure: str | None = None

    def figure(self, name: str) -> Figure | None:
        """By its name."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def holds_for(self, device: str, commit: str) -> bool:
        """Whether it need not be measured again."""
        return self.failure is None and (self.where["device"], self.commit) == (device, commit)


class Report(msgspec.Struct):
    """The results file."""

    sections: dict[str, Section] = {}

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Empty where there is no file yet. Raises msgspec.ValidationError for another kind of file."""
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.is_file() else cls()

    def write(self, path: Path) -> None:
        """At once or not at all: a run that is cut short leaves what it had."""
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        beside.replace(path)
