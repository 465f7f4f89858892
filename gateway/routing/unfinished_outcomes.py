"""Outcomes on their way into a file: each on the disk as soon as it is there, so that nothing that was made is lost."""

import gzip
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from router_model.outcomes import OutcomeRow

INFIX = ".unfinished-"
"""In the name of the file that holds them until all are there."""


class _Kept(msgspec.Struct):
    """What is read of a row that an earlier run made."""

    id: str
    weak_score: float
    strong_score: float


def check_writable(out: Path) -> None:
    """Make the folder of `out`, and raise OSError where no file can be written there: before hours of work, not after
    them.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder: name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent):
        pass


class UnfinishedOutcomes:
    """Rows beside `out`, in a file that a later run of the same key takes up; `finish` makes `out` of them.

    As a context it closes the file, which stays unless it was finished. ids: of the rows that are there. n, small_sum,
    large_sum: rows, and the sums of their scores.
    """

    def __init__(self, out: Path, key: str) -> None:
        """key: letters and digits that name what the rows depend on, such as the models. OSError: cannot be written."""
        self._out = out
        self.path = out.with_name(f"{out.name}{INFIX}{key}.jsonl")
        self.ids: set[str] = set()
        self.n, self.small_sum, self.large_sum = 0, 0.0, 0.0
        self._encoder = msgspec.json.Encoder()
        self._file: BinaryIO = self.path.open("a+b")
        self._take_up()

    def __enter__(self) -> "UnfinishedOutcomes":
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and leave none without rows behind."""
        self._file.close()
        if not self.n:
            self.path.unlink(missing_ok=True)

    def add(self, row: OutcomeRow) -> None:
        """Keep a row with both scores. OSError: the disk is full, say."""
        self._file.write(self._encoder.encode(row) + b"\n")
        self._file.flush()
        self._count(row.id, row.weak_score or 0.0, row.strong_score or 0.0)

    def finish(self) -> None:
        """Put all rows into `out`, as a whole; gzipped, without a time stamp, if its name ends in .gz."""
        os.fsync(self._file.fileno())
        if self._out.suffix != ".gz":
            self.path.replace(self._out)
            return
        half = self._out.with_name(f"{self.path.name}.gz")
        try:
            with (
                self.path.open("rb") as rows,
                half.open("wb") as file,
                gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            ):
                shutil.copyfileobj(rows, packed)
            half.replace(self._out)
        finally:
            half.unlink(missing_ok=True)
        self.path.unlink()

    def _take_up(self) -> None:
        """Count what an earlier run left; a last line that it did not get to the end of is cut off."""
        decoder = msgspec.json.Decoder(_Kept)
        whole = 0
        self._file.seek(0)
        for line in self._file:
            try:
                row = decoder.decode(line)
            except msgspec.DecodeError:
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self._count(row.id, row.weak_score, row.strong_score)
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    def _count(self, name: str, small: float, large: float) -> None:
        self.ids.add(name)
        self.n += 1
        self.small_sum += small
        self.large_sum += large
