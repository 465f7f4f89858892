import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.arithmetic import Arithmetic, evaluate, number, without_notes

NUMBERS = st.integers(-999, 999) | st.floats(-999, 999).map(lambda value: round(value, 2))


@given(st.lists(st.tuples(st.sampled_from("+-*/"), NUMBERS), max_size=5), NUMBERS)
def test_expressions_have_the_value_that_python_gives_them(rest: list[tuple[str, float]], first: float) -> None:
    expression = f"{first}" + "".join(f" {op} ({value})" for op, value in rest)
    try:
        expected = float(eval(expression))  # noqa: S307
    except ZeroDivisionError:
        assert evaluate(expression) is None
        return
    value = evaluate(expression)
    if len(expression) > 120:
        assert value is None
    else:
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("written", "value"),
    [("3 x $20,000", 60_000), ("10% * 50", 5), ("6 ÷ 4", 1.5), ("2 × (3 + 1)", 8)],
)
def test_everyday_signs_are_understood(written: str, value: float) -> None:
    assert evaluate(written) == pytest.approx(value)


@pytest.mark.parametrize(
    "written", ["", "9**9**9", "9//2", "__import__('os')", "1/0", "x + 1", "(" * 60 + "1" + ")" * 60 + "+1" * 50, "1e5"]
)
def test_what_is_no_plain_arithmetic_has_no_value(written: str) -> None:
    assert evaluate(written) is None


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    found = Arithmetic.of(text)
    assert found.n_unreadable >= 0
    assert all(math.isfinite(one.claimed) for one in found.notes + found.plain)


def test_right_and_wrong_claims_are_told_apart_in_notes_and_in_plain_text() -> None:
    found = Arithmetic.of("It is 4 * 5 = <<4*5=20>>20 apples, and 7 + 5 = 13 pears. <<2*3+6=6+6=12>> <<1/3=0.33>>")
    assert [(one.claimed, one.holds) for one in found.notes] == [(20, True), (0.33, True)]
    assert [(one.claimed, one.holds) for one in found.plain] == [(20, True), (13, False)]
    assert found.n_unreadable == 1


def test_notes_are_taken_out_of_what_a_reader_sees() -> None:
    assert without_notes("so $<<3*5=15>>15 are left") == "so $15 are left"


@pytest.mark.parametrize(("written", "value"), [("1,200.50", 1200.5), ("$7", 7), ("25%", 0.25), ("seven", None)])
def test_numbers_are_read_as_people_write_them(written: str, value: float | None) -> None:
    assert number(written) == value
