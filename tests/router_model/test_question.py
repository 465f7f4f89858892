import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.question import MAX_OPTIONS, Question


@pytest.mark.parametrize("form", ["{}. {}", "{}) {}", "({}) {}", "{}: {}", "  {}.  {}"])
def test_lettered_lines_are_options_in_every_usual_form(form: str) -> None:
    lines = [form.format(letter, word) for letter, word in zip("ABC", ("red", "green", "blue or so"), strict=True)]
    question = Question.of("Which colour?\n" + "\n".join(lines) + "\nAnswer:")
    assert question.stem == "Which colour?\n"
    assert question.options == ("red", "green", "blue or so")


@given(st.text(max_size=200))
def test_stem_and_options_are_parts_of_the_text_in_its_order(text: str) -> None:
    question = Question.of(text)
    assert text.startswith(question.stem)
    at = len(question.stem)
    for option in question.options:
        assert option
        at = text.index(option, at) + len(option)


def test_a_text_without_a_choice_is_all_stem() -> None:
    for text in ("", "Tell me a story.", "A. Lincoln was president", "Answer A.\nThen stop"):
        assert Question.of(text) == Question(text)


def test_no_more_options_than_ten_are_looked_at() -> None:
    text = "\n".join(f"{'ABCDEFGHIJ'[i % 10]}. option {i}" for i in range(30))
    assert len(Question.of(text).options) == MAX_OPTIONS
