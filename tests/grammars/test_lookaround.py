"""Look-around, boundaries and anchors in the middle: what they become matches what Python's engine finds."""

import re
from unittest import mock

import jsonschema_rs
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from grammars.regex import full_pattern, full_patterns, search_pattern, search_patterns
from grammars.regex_syntax import RegexRefused
from tests.grammars.expressions import EXPRESSIONS, LOOKING, TEXTS

KEYWORDS = ["False", "None", "True", "and", "as", "assert", "async", "class", "def", "del", "elif", "else", "import"]


def _is_found(pattern: str, text: str) -> bool:
    """Whether Python finds it, as ECMA-262 would: before 3.14 Python's `\\B` fails on the empty text alone."""
    assume(text or r"\B" not in pattern)
    return re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None


def _all_match(patterns: tuple[str, ...], text: str) -> bool:
    return all(re.fullmatch(pattern, text) for pattern in patterns)


def _rewritten(pattern: str) -> str:
    """Ours; examples that match nothing or grow too large are left out."""
    try:
        return search_pattern(pattern)
    except RegexRefused as error:
        if "matches no text" in str(error) or "becomes an expression" in str(error):
            reject()
        raise


@given(pattern=LOOKING, text=TEXTS)
def test_an_expression_with_look_around_becomes_one_that_matches_the_same_texts(pattern: str, text: str) -> None:
    rewritten = _rewritten(pattern)
    assert (re.fullmatch(rewritten, text) is not None) == _is_found(pattern, text)


@given(pattern=EXPRESSIONS)
def test_what_must_and_must_not_match_at_once_is_refused(pattern: str) -> None:
    with pytest.raises(RegexRefused, match=r"matches no text|becomes an expression"):
        search_pattern(f"^(?={pattern}$)(?!{pattern}$)")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (rf"^(?!({'|'.join(KEYWORDS)})$)[a-zA-Z_][\w]*$", ["a", "Nones", "Tru", "_"], ["None", "def", "1a", ""]),
        (r"^(?!@@)[@a-zA-Z0-9_-]+$", ["@a", "a@@"], ["@@a", ""]),
        (
            r"^@([\da-z](?:(?!.*--)[\da-z-]*[\da-z])?)/([\da-z](?:(?!.*--)[\da-z-]*[\da-z])?)$",
            ["@a-b/c", "@0/z"],
            ["@a--b/c", "@a-b/c--d", "@-a/b", "@a/b-"],
        ),
        (r"^((?!foo).)*$", ["afobar", "", "fo"], ["foo", "afoobar", "foo\n"]),
        (r"\bword\b", ["a word.", "word", "\nword"], ["swords", "word1", "passwords"]),
        (r"^\bword\b$", ["word"], ["words", " word"]),
        (r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{6,}$", ["aA3456"], ["aa3456", "aA345"]),
        (r"(?<!\d)\d{3}(?!\d)", ["a123b", "123"], ["1234", "12"]),
        (r"(?<=(?<!b)a)c", ["ac", "cac"], ["bac", "c"]),
        (r"^(?!\s)(?!.*\s$)[\s\S]+$", ["a b"], [" a", "a ", ""]),
        (r"(?:^|,)b(?=,|$)", ["b", "a,b", "b,a"], ["ab", "bb"]),
        (r"(a$)+", ["a", "ba"], ["ab"]),
        (r"^(?:(?=a)\w|(?!a)\W)+$", ["a", "-a!"], ["b", "ab"]),
    ],
)
def test_patterns_of_real_schemas_are_held(pattern: str, inside: list[str], outside: list[str]) -> None:
    rewritten = search_pattern(pattern)
    assert [text for text in inside if not re.fullmatch(rewritten, text)] == []
    assert [text for text in outside if re.fullmatch(rewritten, text)] == []


@given(pattern=LOOKING, text=TEXTS)
def test_a_validator_without_look_around_judges_the_rewritten_expression_alike(pattern: str, text: str) -> None:
    rewritten = _rewritten(pattern)
    options = jsonschema_rs.RegexOptions()
    validator = jsonschema_rs.Draft202012Validator({"pattern": f"^(?:{rewritten})$"}, pattern_options=options)
    assert validator.is_valid(text) == _is_found(pattern, text)


@given(conditions=st.lists(LOOKING, max_size=3), pattern=LOOKING, text=TEXTS)
def test_conditions_that_stay_apart_hold_together(conditions: list[str], pattern: str, text: str) -> None:
    whole = "^" + "".join(f"(?{'=!'[len(item) % 2]}{item})" for item in conditions) + f"(?:{pattern})$"
    with mock.patch("grammars.regex.MAX_WHOLE", 0):
        try:
            parts = search_patterns(whole)
        except RegexRefused as error:
            assume("matches no text" in str(error))
            assert not _is_found(whole, text)
            return
    assert _all_match(parts, text) == _is_found(whole, text)


def test_a_password_rule_is_held_by_its_conditions() -> None:
    rule = r"^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[!@#]).{8,32}$"
    parts = search_patterns(rule)
    assert len(parts) == 5
    assert parts == full_patterns(rule)
    assert max(map(len, parts)) < 100
    for text in ("aB3!aB3!", "aB3!aB3", "aB33aB33", "aB3!" * 9):
        assert _all_match(parts, text) == (re.search(rule, text) is not None)


@pytest.mark.parametrize("pattern", ["^(?!.*)$", "a^b", "(a$)b", r"a\bb", "(?=a)b", "(?!a)a", "(?<=a)^b"])
def test_an_expression_that_contradicts_itself_is_refused(pattern: str) -> None:
    with pytest.raises(RegexRefused, match="matches no text"):
        full_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(?=a)*", r"\b+", "^*", "(?!a){2}", "(?=a", "(?<=a"])
def test_malformed_look_around_is_refused(pattern: str) -> None:
    with pytest.raises(RegexRefused):
        search_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?=(?:a|b)*a(?:a|b){24}$)(?:[ab]{40})$",
        r"^(?!(?:a|b)*a(?:a|b){24})[ab]*$",
        r"(?:(?=((((a{1,30}){1,30}){1,30}))).)*b",
        "".join(f"(?=.*{a})" for a in "abcdefghijklmnop") + ".*",
        r"(\b|\B){500}a" * 3,
    ],
)
def test_hostile_look_around_is_refused_soon(pattern: str) -> None:
    with pytest.raises(RegexRefused):
        search_pattern(pattern)
