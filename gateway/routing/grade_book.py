"""Takes every grade of an answer, whoever gives it: clients, shadow pairs, the grading of live answers.

grade ─► row of the table `outcomes`
      ─► the router in force, which compares it with what it had predicted
      ─► counts, and the last predictions with their scores, for the metrics
"""

import enum
import uuid
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from gateway.storage.protocols import Recorder
from gateway.storage.records import OutcomeRecord
from router_model.grading import GraderName
from router_model.metrics import ece_debiased
from router_model.options import Action

MOST_SCORES: Final = 1_000
"""The calibration error is that of the last so many graded answers of a model."""

MIN_SCORES: Final = 50
"""Fewer than this say nothing of a calibration."""


class Origin(enum.StrEnum):
    """How a grade came to be: told through the API, of a shadow pair, or of an ordinary answer drawn for grading."""

    API = "api"
    SHADOW = "shadow"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Prediction:
    """p: how likely the router with this hash held the answer to be good, 0 to 1."""

    artefact_hash: str
    p: float

    @classmethod
    def of(cls, artefact_hash: str | None, p: float | None) -> "Prediction | None":
        """None where no router predicted anything."""
        return None if artefact_hash is None or p is None else cls(artefact_hash, p)


class TellGrade(Protocol):
    """`Router.graded`."""

    def __call__(
        self, decision_id: uuid.UUID, artefact_hash: str | None, model: str, p: float, score: float, weight: float = 1.0
    ) -> None:
        """An answer's score, and what was predicted of it."""


class GradeBook:
    """Used from one event loop."""

    def __init__(self, recorder: Recorder, tell: TellGrade) -> None:
        """recorder: where the rows go; tell: who is told of grades that can be compared with a prediction."""
        self._recorder, self._tell = recorder, tell
        self._counts: Counter[tuple[Origin, str]] = Counter()
        self._scores: dict[str, OrderedDict[uuid.UUID, tuple[Prediction, float]]] = {
            action.value: OrderedDict() for action in Action
        }

    @property
    def counts(self) -> Mapping[tuple[Origin, str], int]:
        """Rows since start, by origin and source. Sources that clients made up are `other`."""
        return self._counts

    def put(self, record: OutcomeRecord, origin: Origin, predicted: Prediction | None) -> None:
        """Take a grade. predicted: of that answer, None where its grade can say nothing of a prediction.

        A grade of its form alone is none of what was predicted, and neither is a like or dislike, which only the moved
        give.
        """
        self._recorder.put(record)
        self._counts[origin, _bounded(record.source)] += 1
        if predicted is None or record.score is None or record.source == GraderName.SCHEMA_VALID:
            return
        self._tell(record.decision_id, predicted.artefact_hash, record.model, predicted.p, record.score, record.weight)
        kept = self._scores[record.model]
        kept[record.decision_id] = predicted, record.score
        if len(kept) > MOST_SCORES:
            kept.popitem(last=False)

    def calibration_error(self, model: str, artefact_hash: str) -> float | None:
        """Root mean squared difference of a router's predictions and the scores of that model's last graded answers,
        noise taken off (`ece_debiased`); None where there are fewer than MIN_SCORES.
        """
        pairs = [(one.p, score) for one, score in self._scores[model].values() if one.artefact_hash == artefact_hash]
        if len(pairs) < MIN_SCORES:
            return None
        p, scores = np.array(pairs, np.float64).T
        return ece_debiased(p, scores)


_SOURCES = frozenset({"client", *GraderName})


def _bounded(source: str) -> str:
    return source if source in _SOURCES else "other"
