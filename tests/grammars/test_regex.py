"""What a client's expression becomes matches the same texts, in full."""

import re
import string

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grammars import automata
from grammars.regex import all_but, full_pattern, search_pattern
from grammars.regex_syntax import RegexRefused, parse
from grammars.regex_text import emit
from tests.grammars.expressions import ANCHORED, TEXTS


@given(pattern=ANCHORED, other=ANCHORED, text=TEXTS)
def test_a_search_pattern_matches_in_full_what_the_expression_finds_anywhere(
    pattern: str, other: str, text: str
) -> None:
    for expression in (pattern, f"{pattern}|{other}"):
        found = re.search(expression, text, re.ASCII) is not None
        assert (re.fullmatch(search_pattern(expression), text) is not None) == found


@given(pattern=ANCHORED, text=TEXTS)
def test_a_full_pattern_matches_what_the_anchored_expression_matches(pattern: str, text: str) -> None:
    matches = re.fullmatch(pattern, text, re.ASCII) is not None
    assert (re.fullmatch(full_pattern(pattern), text) is not None) == matches


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), text=TEXTS)
def test_all_but_some_texts_is_every_other_text(texts: list[str], text: str) -> None:
    assert (re.fullmatch(all_but(texts), text) is not None) == (text not in texts)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)b", r"(a)\1", r"(?<x>a)\k<x>", "(?i)a", "a**", "*a", "(a", "a)",
        "[a", r"[z-a]", r"a{3,1}", r"\p{", r"\u12", "a{1,1000000}", "(?:(?:a{1,100}){1,100}){1,100}", "a^b", "(a$)+b",
        "(" * 100 + "a" + ")" * 100, "a" * 10_000, r"\q", "[]", r"\xg1",
    ],
)  # fmt: skip
def test_what_is_malformed_no_regular_language_or_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(RegexRefused):
        search_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (r"^\u00e9$", "é", "e"),
        (r"^\ud83d\ude00$", "😀", "\ufffd"),
        (r"^\x41\cJ$", "A\n", "AJ"),
        (r"^.$", "a", "\u2028"),
        (r"^[\s\S]$", "\n", ""),
        (r"^[^\n]$", "\r", "\n"),
        (r"^[\b]$", "\x08", "b"),
        (r"^a{,3}$", "a{,3}", "aa"),
        (r"^[&&a]$", "&", "b"),
        (r"^\/[/]$", "//", "/"),
        ("^(a|b$|^c)$", "b", "ab"),
        ("^$", "", "\n"),
        (r"^\s$", "\ufeff", "\x85"),
        (r"^\S$", "\x1c", "\ufeff"),
        (r"^[^\s]$", "\x85", "\ufeff"),
    ],
)
def test_expressions_are_read_as_ecma_262_reads_them(pattern: str, inside: str, outside: str) -> None:
    assert re.fullmatch(search_pattern(pattern), inside)
    assert not re.fullmatch(search_pattern(pattern), outside)


@given(pattern=ANCHORED)
def test_an_expression_of_ours_is_read_as_itself(pattern: str) -> None:
    ours = search_pattern(pattern)
    again = emit(parse(ours))
    assert automata.includes(ours, again)
    assert automata.includes(again, ours)
    assert emit(parse(again)) == again


@pytest.mark.parametrize("char", [*string.punctuation, "\u2028", "\u00a0", "\x00", "\n", "\ufeff", "\U0001f600"])
def test_every_character_is_written_so_that_rust_reads_it_as_itself(char: str) -> None:
    pattern = re.escape(char) if char in string.punctuation else char
    for expression, texts in ((f"^a{pattern}$", [f"a{char}"]), (f"^[a{pattern}]$", ["a", char])):
        ours = {"pattern": f"^(?:{search_pattern(expression)})$"}
        validator = jsonschema_rs.Draft202012Validator(ours, pattern_options=jsonschema_rs.RegexOptions())
        assert all(validator.is_valid(text) for text in texts)
        assert not any(validator.is_valid(text) for text in ("b", "", "ab", "a b", "a\x07"))


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\u00a0", "\x85", "\u200b"])
def test_what_cannot_be_seen_is_written_as_an_escape(char: str) -> None:
    assert char not in search_pattern(f"[{char}.]")
