"""The book of grades: what is written, who is told, what is counted and remembered."""

from collections.abc import Callable

import numpy as np
import pytest

from gateway.routing.grade_book import MIN_SCORES, MOST_SCORES, GradeBook, Origin, Prediction
from gateway.storage.identifiers import new_id
from gateway.storage.records import OutcomeRecord
from router_model.metrics import ece_debiased
from tests.gateway.live_world import Kept

OURS = "hash of the router"


def record(score: float | None = 1.0, **fields: object) -> OutcomeRecord:
    defaults: dict[str, object] = {"decision_id": new_id(), "model": "small", "score": score, "source": "client"}
    return OutcomeRecord(**defaults | fields)  # type: ignore[arg-type]


def book(tell: Callable[..., None] = lambda *_: None) -> GradeBook:
    return GradeBook(Kept(), tell)


@pytest.mark.parametrize(
    ("said", "predicted", "is_told"),
    [
        (record(0.5), Prediction(OURS, 0.75), True),
        (record(0.5), None, False),
        (record(None, feedback=-1), Prediction(OURS, 0.75), False),
        (record(1.0, source="schema_valid"), Prediction(OURS, 0.75), False),
    ],
    ids=["score", "no prediction", "dislike", "form"],
)
def test_every_grade_is_written_and_only_quality_is_told(
    said: OutcomeRecord, predicted: Prediction | None, is_told: bool
) -> None:
    kept, told = Kept(), list[tuple[object, ...]]()
    GradeBook(kept, lambda *args: told.append(args)).put(said, Origin.API, predicted)
    assert kept.rows == [said]
    assert told == ([(said.decision_id, OURS, "small", 0.75, 0.5, 1.0)] if is_told else [])


def test_rows_are_counted_by_origin_and_by_no_name_that_a_client_made_up() -> None:
    grades = book()
    for number in range(50):
        grades.put(record(source=f"reviewer-{number}"), Origin.API, None)
    grades.put(record(), Origin.API, None)
    grades.put(record(source="command"), Origin.LIVE, None)
    assert grades.counts == {(Origin.API, "other"): 50, (Origin.API, "client"): 1, (Origin.LIVE, "command"): 1}


def test_the_calibration_error_is_that_of_this_routers_last_grades_each_answer_once() -> None:
    grades, rng = book(), np.random.default_rng(0)
    p = rng.random(MOST_SCORES + 200)
    scores = (rng.random(len(p)) < p**3).astype(float)  # answers that are worse than predicted
    said = [record(float(score)) for score in scores]
    assert grades.calibration_error("small", OURS) is None
    for i, one in enumerate(said):
        grades.put(one, Origin.SHADOW, Prediction(OURS, float(p[i])))
        if i + 1 < MIN_SCORES:
            assert grades.calibration_error("small", OURS) is None
    expected = ece_debiased(p[-MOST_SCORES:], scores[-MOST_SCORES:])
    assert grades.calibration_error("small", OURS) == pytest.approx(expected)
    assert expected > 0.2
    for _ in range(300):  # what is said again of one answer changes nothing
        grades.put(said[-1], Origin.API, Prediction(OURS, float(p[-1])))
    assert grades.calibration_error("small", OURS) == pytest.approx(expected)
    assert grades.calibration_error("large", OURS) is None
    assert grades.calibration_error("small", "another router") is None


def test_nothing_is_predicted_without_a_router() -> None:
    assert Prediction.of(None, 0.5) is None
    assert Prediction.of(OURS, None) is None
    assert Prediction.of(OURS, 0.0) == Prediction(OURS, 0.0)
