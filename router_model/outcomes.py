"""Outcomes: what the models made of one prompt. The rows that a router is trained and scored on, as JSON lines.

Three forms of row are read, and may be mixed in one file:

- our own, written by `OutcomeRow` from engine runs, with facts and the small model's prefill state;
- those of the own log, with packed features in place of the prompt, and mostly only the served model's score;
- public benchmark rows, with `weak_correct` / `strong_correct` (0 or 1) or `weak_score` / `strong_score` (0 to 1) and
  the prompt.

In all, weak is the small model and strong the large one.
"""

import codecs
import datetime
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.facts import RequestFacts
from router_model.options import Action
from router_model.prefill import PrefillState


class OutcomeError(ValueError):
    """A row that cannot be used; the message names file and line and says what is missing."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy chose and what came of it, for estimates of other policies (not for training).

    action and propensity: as decided. reward: score of the answer that the client got, 0 to 1; after an escalation that
    is the large model's, and still the reward of choosing small. is_escalated: whether that happened. graded_prob:
    probability by which that answer came to be graded.
    """

    action: Action
    propensity: float
    reward: float
    is_escalated: bool = False
    graded_prob: float = 1.0

    @property
    def is_possible(self) -> bool:
        """Whether all its numbers are within their bounds."""
        return 0 < self.propensity <= 1 and 0 < self.graded_prob <= 1 and 0 <= self.reward <= 1


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One prompt with what the models scored on it (0 to 1, NaN where that model was not graded).

    Tokens are those generated; None is not recorded. The fields are those of `OutcomeRow`; `text` is empty where only
    packed `features` were kept.
    """

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
    source: str = ""
    route: str = ""
    weight: float = 1.0
    weak_response: str | None = None
    small_logprob_mean: float | None = None
    small_logprob_min: float | None = None
    small_valid: bool | None = None
    features: bytes | None = None
    action: Action | None = None
    propensity: float | None = None
    cost_usd: float | None = None
    cost_if_large_usd: float | None = None
    threshold: float | None = None
    decided_at: datetime.datetime | None = None
    session: str = ""
    choice: Choice | None = None

    @property
    def has_both(self) -> bool:
        """Whether both models were graded."""
        return not (math.isnan(self.weak_score) or math.isnan(self.strong_score))


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

    Of the own log: features are packed (`Features.pack`) and replace prompt and state; action is the model that the
    policy took, with its propensity and the threshold in force, and then only that model's score must be there; weight
    counts the row in training (1 / propensity and the label's own). source: where the label is from; route: kind of
    traffic; session: the conversation. weak_response, small_logprob_* and small_valid are of the small model's answer.
    cost_if_large_usd: what the large model alone would have cost.
    """

    id: str
    prompt: str | None = None
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
    source: str = ""
    route: str = ""
    weight: float = 1.0
    weak_response: str | None = None
    small_logprob_mean: float | None = None
    small_logprob_min: float | None = None
    small_valid: bool | None = None
    features: bytes | None = None
    action: Action | None = None
    propensity: float | None = None
    cost_usd: float | None = None
    cost_if_large_usd: float | None = None
    threshold: float | None = None
    decided_at: datetime.datetime | None = None
    session: str = ""
    choice: Choice | None = None

    def outcome(self) -> Outcome:
        """The row as an Outcome. ValueError says which fields are missing or out of range."""
        if self.prompt is None and self.features is None:
            raise ValueError("the row needs `prompt`, or packed `features` in its place")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"the weight is {self.weight}: use a finite number from 0")
        if wrong := [name for name, count in asdict(self.facts).items() if count < 0]:
            raise ValueError(f"`facts.{wrong[0]}` is below 0: counts are 0 or more")
        if self.propensity is not None and not 0 < self.propensity <= 1:
            raise ValueError(f"the propensity is {self.propensity}: use above 0, to 1")
        if self.choice is not None and not self.choice.is_possible:
            raise ValueError("the choice needs a propensity and a graded_prob above 0, to 1, and a reward of 0 to 1")
        return Outcome(
            id=self.id,
            group=self.group or self.session or self.id,
            text=self.prompt or "",
            weak_score=_score("weak", self.weak_correct, self.weak_score, needed=self.action is not Action.LARGE),
            strong_score=_score(
                "strong", self.strong_correct, self.strong_score, needed=self.action is not Action.SMALL
            ),
            facts=self.facts,
            state=self._state(),
            small_tokens=self.small_tokens,
            large_tokens=self.large_tokens,
            subject=self.subject,
            source=self.source,
            route=self.route,
            weight=self.weight,
            weak_response=self.weak_response,
            small_logprob_mean=self.small_logprob_mean,
            small_logprob_min=self.small_logprob_min,
            small_valid=self.small_valid,
            features=self.features,
            action=self.action,
            propensity=self.propensity,
            cost_usd=self.cost_usd,
            cost_if_large_usd=self.cost_if_large_usd,
            threshold=self.threshold,
            decided_at=self.decided_at,
            session=self.session,
            choice=self.choice,
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

    Other tools' ways of writing are taken: a number as `id`, true and false as `*_correct`, null for what is not there,
    a byte order mark. OutcomeError names file and line of the first row that is malformed.
    """
    decoder = msgspec.json.Decoder(OutcomeRow)
    outcomes = []
    for path in map(Path, paths):
        for number, line in _lines(path):
            try:
                outcomes.append(_decoded(line, decoder).outcome())
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


def _decoded(line: bytes, decoder: "msgspec.json.Decoder[OutcomeRow]") -> OutcomeRow:
    """The row in a line, in our own way of writing or another. msgspec.DecodeError: it is none."""
    try:
        return decoder.decode(line)
    except msgspec.ValidationError:
        found = msgspec.json.decode(line)
        if not isinstance(found, dict):
            raise
    row = {name: value for name, value in found.items() if value is not None}
    if isinstance(row.get("id"), int | float) and not isinstance(row["id"], bool):
        row["id"] = str(row["id"])
    for name in ("weak_correct", "strong_correct"):
        if isinstance(row.get(name), bool):
            row[name] = float(row[name])
    return msgspec.convert(row, OutcomeRow)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise OutcomeError(f"{path}: cannot be read ({error})") from error


def _score(side: str, correct: float | None, score: float | None, *, needed: bool) -> float:
    if correct is not None and correct not in (0, 1):
        raise ValueError(f"`{side}_correct` is {correct}: use 0 or 1; anything between is a `{side}_score`")
    value = correct if correct is not None else score
    if value is None and not needed:
        return math.nan
    if value is None:
        raise ValueError(f"the row needs `{side}_score` (0 to 1) or `{side}_correct` (0 or 1)")
    if not 0 <= value <= 1:
        raise ValueError(f"the {side} score is {value}: use 0 to 1")
    return float(value)
