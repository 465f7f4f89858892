"""What counts as an exact answer."""

import json

from hypothesis import given
from hypothesis import strategies as st

from router_model.grading import exact_match

ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
OBJECTS = st.dictionaries(
    st.text(), st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)


@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
def test_spelling_of_json_does_not_count(value: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(dict(reversed(value.items())), ensure_ascii=ascii_only, indent=indent)
    assert exact_match(text, value)


@given(OBJECTS, OBJECTS)
def test_only_equal_objects_match(said: dict[str, object], expected: dict[str, object]) -> None:
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
