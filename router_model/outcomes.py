"""Outcomes: what both models made of one prompt. The rows that a router is trained and scored on, as JSON lines.

Two forms of row are read, and may be mixed in one file:

- our own, written by `OutcomeRow` from engine runs, with facts and the small model's prefill state;
- public benchmark rows, with `weak_correct` / `strong_correct` (0 or 1) or `weak_score` / `strong_score` (0 to 1) and
  the prompt.

In both, weak is the small model and strong the large one.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.facts import RequestFacts
from router_model.prefill import PrefillState


class OutcomeError(ValueError):
    """A row that cannot be used; the message names file and line and says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One prompt with what both models scored on it (0 to 1). Tokens are those generated; None is not recorded."""

    id: str
    group: str
    text: str
    weak_score: float
    strong_score: float
    facts: RequestFacts = field(default_factory=RequestFacts)
    state: PrefillState | None = None
    small_tokens: int | None = None
    large_tokens: int | None = None
    subject: str = ""


class StateBlob(msgspec.Struct, frozen=True):
    """A prefill state in a row: little-endian values (base64 in JSON) of shape [n_layers, 2, hidden]."""

    data: bytes
    shape: tuple[int, int, int]
    dtype: Literal["float16", "float32"] = "float16"

    @classmethod
    def of(cls, values: NDArray[np.floating], dtype: Literal["float16", "float32"] = "float16") -> "StateBlob":
        """Pack `values` [n_layers, 2, hidden]; float16 halves the file and is enough for training."""
        layers, pools, hidden = values.shape
        largest = np.finfo(dtype).max  # a float16 beyond its range would become infinite
        values = np.clip(values, -largest, largest)
        return cls(values.astype(np.dtype(dtype).newbyteorder("<")).tobytes(), (layers, pools, hidden), dtype)


class OutcomeRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One JSON line. Unknown keys are ignored.

    prompt: the conversation's messages joined by newlines, the text that the gateway gives to the router for such a
    request (tools and schemas are not in it: `facts` counts them). group: near duplicates and one conversation share
    it, so that they never lie on both sides of a split; the id where it is missing. Scores are 0 to 1; where
    `*_correct` is given it wins, since the heads predict a probability of being right. state, entropy and margin come
    together or not at all.
    """

    id: str
    prompt: str
    group: str = ""
    subject: str = ""
    weak_score: float | None = None
    strong_score: float | None = None
    weak_correct: float | None = None
    strong_correct: float | None = None
    facts: RequestFacts = RequestFacts()
    state: StateBlob | None = None
    entropy: float | None = None
    margin: float | None = None
    small_tokens: int | None = None
    large_tokens: int | None = None

    def outcome(self) -> Outcome:
        """The row as an Outcome. ValueError says which fields are missing or out of range."""
        return Outcome(
            id=self.id,
            group=self.group or self.id,
            text=self.prompt,
            weak_score=_score("weak", self.weak_correct, self.weak_score),
            strong_score=_score("strong", self.strong_correct, self.strong_score),
            facts=self.facts,
            state=self._state(),
            small_tokens=self.small_tokens,
            large_tokens=self.large_tokens,
            subject=self.subject,
        )

    def _state(self) -> PrefillState | None:
        if self.state is None:
            return None
        if self.entropy is None or self.margin is None:
            raise ValueError("`state` needs `entropy` and `margin` beside it")
        return PrefillState.from_bytes(
            self.state.data, self.state.shape, self.entropy, self.margin, dtype=self.state.dtype
        )


def read_outcomes(paths: Iterable[Path | str]) -> list[Outcome]:
    """Read .jsonl and .jsonl.gz files in the order given.

    OutcomeError names file and line of the first row that is malformed.
    """
    decoder = msgspec.json.Decoder(OutcomeRow)
    outcomes = []
    for path in map(Path, paths):
        for number, line in _lines(path):
            try:
                outcomes.append(decoder.decode(line).outcome())
            except (msgspec.DecodeError, ValueError) as error:
                raise OutcomeError(f"{path}, line {number}: {error}") from error
    return outcomes


def write_outcomes(path: Path | str, rows: Iterable[OutcomeRow]) -> int:
    """Write rows as JSON lines (gzipped where the name ends in .gz, without a time stamp) and return how many."""
    encoder = msgspec.json.Encoder()
    lines = [encoder.encode(row) for row in rows]
    data = b"".join(line + b"\n" for line in lines)
    path = Path(path)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return len(lines)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise OutcomeError(f"{path}: cannot be read ({error})") from error


def _score(side: str, correct: float | None, score: float | None) -> float:
    value = correct if correct is not None else score
    if value is None:
        raise ValueError(f"the row needs `{side}_score` (0 to 1) or `{side}_correct` (0 or 1)")
    if not 0 <= value <= 1:
        raise ValueError(f"the {side} score is {value}: use 0 to 1")
    return float(value)
