"""What counts as an exact answer."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.grading import (
    GraderName,
    compare,
    contains,
    exact_match,
    last_number,
    number_equal,
    schema_valid,
)

ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_spelling_of_json_does_not_count(value: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(dict(reversed(value.items())), ensure_ascii=ascii_only, indent=indent)
    assert exact_match(text, value)


@given(OBJECTS, st.none() | OBJECTS)
def test_only_equal_objects_match(said: dict[str, object], other: dict[str, object] | None) -> None:
    expected = said if other is None else other
    same = json.dumps(said, sort_keys=True) == json.dumps(expected, sort_keys=True)
    assert exact_match(json.dumps(said), expected) == same


def test_types_count() -> None:
    assert not exact_match('{"a":1.0}', {"a": 1})
    assert not exact_match('{"a":true}', {"a": 1})
    assert not exact_match('{"a":"1"}', {"a": 1})


def test_the_order_of_calls_counts() -> None:
    first, second = {"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}
    assert exact_match(json.dumps([first, second]), [first, second])
    assert not exact_match(json.dumps([second, first]), [first, second])


def test_where_no_call_is_due_any_text_is_right_and_no_json() -> None:
    assert exact_match("None of the offered tools fits.", None)
    assert not exact_match('[{"name":"f","arguments":{}}]', None)
    assert not exact_match("  ", None)


def test_cut_off_json_is_wrong() -> None:
    assert not exact_match('{"a":1', {"a": 1})


def test_text_is_compared_as_it_stands() -> None:
    assert exact_match("Paris\n", "Paris")
    assert not exact_match("paris", "Paris")


@given(st.integers(-(10**12), 10**12), st.sampled_from(["so it is {}.", "#### {}", "{} apples", "from 3 to {}"]))
def test_a_number_is_found_however_its_thousands_are_written(value: int, sentence: str) -> None:
    assert number_equal(sentence.format(f"{value:,}"), str(value))
    assert number_equal(sentence.format(value), f"the answer is {value}")
    assert not number_equal(sentence.format(value), str(value + 1))


@given(st.decimals(-(10**6), 10**6, places=3))
def test_equal_numbers_may_have_more_zeros(value: Decimal) -> None:
    assert number_equal(f"{value:f}", f"{value:f}000" if "." in f"{value:f}" else f"{value:f}.0")


def test_a_dash_between_numbers_is_no_sign() -> None:
    assert last_number("pages 12-15") == 15
    assert last_number("it was -15") == -15


@given(st.text())
def test_no_text_makes_a_number_grader_fail(text: str) -> None:
    number_equal(text, text)
    assert not number_equal("there is none", text)


def test_an_answer_contains_whole_words_only() -> None:
    assert contains("It is  PARIS, of course.", "paris")
    assert contains("in New\nYork City", "new york")
    assert not contains("comparison", "paris")
    assert not contains("anything", "  ")


def test_what_compares_with_a_string_refuses_an_object() -> None:
    with pytest.raises(ValueError, match="compares with a string"):
        compare(GraderName.NUMBER, "3", {"a": 3})
    with pytest.raises(ValueError, match="does not compare"):
        compare(GraderName.COMMAND, "3", "3")


@pytest.mark.parametrize(
    ("ended", "valid", "score"),
    [(True, True, 1.0), (True, None, 1.0), (True, False, 0.0), (False, True, 0.0), (False, None, 0.0)],
)
def test_form_is_good_where_the_answer_ended_and_breaks_nothing(ended: bool, valid: bool | None, score: float) -> None:
    assert schema_valid(ended=ended, valid=valid) == score
