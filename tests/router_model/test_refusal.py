"""Answers that decline are told from answers that merely mention it."""

import pytest

from router_model.refusal import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m very sorry, I cannot provide this information.",
        "Sorry, I'm unable to answer.",
        "I cannot assist with that request.",
        "As an AI language model, I don't feel comfortable with that.",
        "Unfortunately, I am not able to open links.",
        "  I apologize, but I won't do that.",
        "I'm sorry. As an AI assistant, I can not know this.",
    ],
)
def test_refusals_are_known_by_their_beginning(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sorry for the delay: the parcel leaves on Monday.",
        "I can help with that.",
        "I cancelled the order.",
        "Cannot be zero, since the denominator would vanish.",
        "The answer is 7. I'm sorry, but I can't show the proof.",
        "I'm sorry to hear that. Try restarting the router.",
        "Unfortunately, the train is late.",
        '{"answer": "I cannot help"}',
    ],
)
def test_other_answers_are_not(text: str) -> None:
    assert not is_refusal(text)
