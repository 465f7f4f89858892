"""The one rule of what fails an answer, as rows of outcomes are read by it; serving is tested with the gateway."""

import pytest

from router_model.answer import PARTIAL, Answer
from router_model.escalation import EscalateReason, recorded_failure


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
