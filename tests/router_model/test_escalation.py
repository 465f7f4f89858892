"""The one rule of what fails an answer, as rows of outcomes are read by it; serving is tested with the gateway."""

from typing import Any

import pytest

from router_model.answer import PARTIAL, Answer
from router_model.escalation import EscalateReason, has_failed, recorded_failure
from router_model.outcomes import Outcome


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(text="{", n_tokens=1, is_valid=False), EscalateReason.INVALID),
        (Answer(text="{", n_tokens=1, is_valid=False, reason="length"), EscalateReason.LENGTH),
        (Answer(text="", n_tokens=0, is_valid=True), None),  # it calls tools
        (Answer(text="  \n", n_tokens=1), EscalateReason.EMPTY),
        (Answer(text="I'm sorry, but I can't help with that.", n_tokens=9), EscalateReason.REFUSAL),
        (Answer(text='"I can\'t help"', n_tokens=5, is_valid=True), None),
        (Answer(text="", n_tokens=0, reason=PARTIAL), None),
        (Answer(text="so long", n_tokens=9, reason="length"), None),
        (Answer(text="42", n_tokens=1), None),
    ],
)
def test_what_was_validated_had_a_constraint_and_other_text_was_free(
    answer: Answer, reason: EscalateReason | None
) -> None:
    assert recorded_failure(answer) is reason


@pytest.mark.parametrize(
    ("recorded", "fails"),
    [
        ({}, False),  # no answer
        ({"weak_response": "42"}, False),
        ({"weak_response": " "}, True),
        ({"weak_response": "{}", "small_valid": True}, False),
        ({"weak_response": "{", "small_valid": False}, True),
        ({"small_valid": False}, True),
        ({"small_valid": True, "small_logprob_mean": -0.1}, False),
        ({"small_logprob_mean": -0.1}, False),  # a log keeps no text, so that none is no empty answer
    ],
)
def test_a_row_tells_of_a_failure_as_far_as_it_holds_the_answer(recorded: dict[str, Any], fails: bool) -> None:
    assert has_failed(Outcome(id="1", group="1", text="?", weak_score=0.0, strong_score=1.0, **recorded)) == fails
