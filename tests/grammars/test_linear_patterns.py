"""A linear-time validator judges a client's look-around as Python does."""

import re
from typing import Any

import jsonschema_rs
from hypothesis import assume, given, reject

from grammars.linear_patterns import linear, linear_patterns
from grammars.regex import search_pattern
from grammars.regex_syntax import RegexRefused
from tests.grammars.expressions import LOOKING, TEXTS


def _accepts(schema: Any, value: Any) -> bool:
    options = jsonschema_rs.RegexOptions()
    return jsonschema_rs.Draft202012Validator(linear(schema), pattern_options=options).is_valid(value)


@given(pattern=LOOKING, text=TEXTS)
def test_patterns_and_names_with_look_around_are_judged_as_python_judges_them(pattern: str, text: str) -> None:
    assume(text or r"\B" not in pattern)  # Python's, before 3.14, fails there alone
    try:
        search_pattern(pattern)
    except RegexRefused:
        reject()
    is_found = re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None
    assert _accepts({"items": {"pattern": pattern}}, [text]) == is_found
    assert _accepts({"patternProperties": {pattern: False}}, {text: 1}) != is_found


def test_conditions_of_a_password_stand_beside_what_else_is_asked() -> None:
    schema = {"pattern": r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[!@#]).{8,32}$", "allOf": [{"maxLength": 9}]}
    for text, is_right in (("aB3!aB3!", True), ("aB3!aB3!aB", False), ("aB33aB33", False)):
        assert _accepts(schema, text) == is_right


def test_only_what_the_validator_cannot_read_is_replaced() -> None:
    schema = {
        "const": {"pattern": "(?=a)"},
        "properties": {"pattern": {"pattern": "^a|b$"}, "x": {"pattern": r"(?=(a)\1)"}},
        "not": {"anyOf": [{"pattern": r"\d"}, True]},
    }
    assert linear(schema) == schema


def test_an_expression_that_must_match_in_full_is_anchored() -> None:
    assert linear_patterns("a|b", whole=True) == ["^(?:a|b)$"]
    assert linear_patterns("(?!b)[abc]", whole=True) == ["^(?:[ac])$"]


def test_any_character_is_what_ecma_262_means_by_it() -> None:
    assert _accepts({"pattern": "^[^]-]+$"}, "a-]")
    assert not _accepts({"pattern": "^[^]-]+$"}, "ab")


def test_a_boolean_bound_is_replaced_where_the_validator_would_not_read_it() -> None:
    schema = {"properties": {"a": {"minimum": 1, "exclusiveMinimum": True, "exclusiveMaximum": False}}}
    assert linear(schema) == {"properties": {"a": {"exclusiveMinimum": 1}}}
    assert linear(schema, are_booleans_known=True) == schema
