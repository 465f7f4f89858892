import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.answer import NAMES, Answer, answer_features


def seen(text: str, **fields: object) -> dict[str, float]:
    answer = Answer(text=text, n_tokens=len(text) // 4, **fields)  # type: ignore[arg-type]
    return dict(zip(NAMES, answer_features(answer).tolist(), strict=True))


@given(st.text(max_size=400), st.integers(0, 10**6), st.none() | st.floats(-1e9, 0), st.none() | st.booleans())
def test_any_answer_has_finite_features(text: str, n_tokens: int, logprob: float | None, is_valid: bool | None) -> None:
    features = answer_features(
        Answer(text=text, n_tokens=n_tokens, logprob_mean=logprob, logprob_min=logprob, is_valid=is_valid)
    )
    assert features.shape == (len(NAMES),)
    assert np.isfinite(features).all()


def test_the_final_number_is_held_against_the_arithmetic_before_it() -> None:
    good = seen("She has 3 * 4 = <<3*4=12>>12 apples.\n#### 12")
    assert (good["final_was_computed"], good["final_was_last_result"], good["notes_wrong"]) == (1, 1, 0)
    assert seen("She has 3 * 4 = <<3*4=12>>12 apples.\n#### 15")["final_was_computed"] == 0
    early = seen("First 2 + 2 = 4, then 4 + 5 = 9.\n#### 4")
    assert (early["final_was_computed"], early["final_was_last_result"]) == (1, 0)
    assert seen("3 * 4 = <<3*4=13>>13")["notes_wrong"] == 1
    assert seen("3 * 4 = 13")["plain_wrong"] == 1
    assert seen("11.666 people")["final_is_whole"] == 0
    assert seen("11.666 people")["longest_decimals"] == 3


def test_the_form_of_an_answer_shows() -> None:
    plain = seen("It is blue.")
    assert plain["ends_in_sentence"] == 1
    assert seen("It is blue because the")["ends_in_sentence"] == 0
    assert seen("I'm sorry, I cannot help.")["refusals"] > plain["refusals"] == 0
    assert seen("However, that is a mistake")["doubts"] > plain["doubts"] == 0
    assert seen("Let x be the age; x + 3 = 9")["unknowns"] > plain["unknowns"] == 0
    assert seen("one\none\none")["repeated_lines"] == pytest.approx(2 / 3)
    assert seen('{"a": 1}')["is_json"] == 1
    assert seen("x", reason="length")["ended_by_length"] == 1


def test_unknown_marks_are_told_from_bad_ones() -> None:
    unknown, bad = seen("x"), seen("x", is_valid=False, logprob_mean=-3.0, logprob_min=-9.0)
    assert (unknown["is_valid"], unknown["is_invalid"], unknown["has_logprobs"]) == (0, 0, 0)
    assert (bad["is_invalid"], bad["has_logprobs"], bad["logprob_mean"], bad["logprob_min"]) == (1, 1, -3, -9)
