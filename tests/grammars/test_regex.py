"""What a client's expression becomes matches the same texts, in full."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grammars.regex import all_but, full_pattern, search_pattern
from grammars.regex_syntax import RegexRefused

ATOMS = st.sampled_from(["a", "b", "c", "[ab]", "[^a]", r"\d", r"\w", r"\W", r"\S", r"[a-c\d]", "0", r"\.", "-"])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,3}?", "+?"])
    return (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})")
        | st.tuples(inner, counts).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
    )


EXPRESSIONS = st.recursive(ATOMS, _combined, max_leaves=6)
ANCHORED = st.tuples(st.sampled_from(["", "^"]), EXPRESSIONS, st.sampled_from(["", "$"])).map("".join)
TEXTS = st.text(alphabet="abc0-. é", max_size=6)


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
        "(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", r"(?<x>a)\k<x>", r"\bword\b", "(?i)a", "a**", "*a", "(a",
        "a)",
        "[a", r"[z-a]", r"a{3,1}", r"\p{", r"\u12", "a{1,1000000}", "(?:(?:a{1,100}){1,100}){1,100}", "a^b", "(a$)+b",
        "(" * 100 + "a" + ")" * 100, "a" * 10_000, r"\q", "[]", r"\xg1",
    ],
)  # fmt: skip
def test_what_no_linear_time_automaton_holds_is_refused(pattern: str) -> None:
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
    ],
)
def test_expressions_are_read_as_ecma_262_reads_them(pattern: str, inside: str, outside: str) -> None:
    assert re.fullmatch(search_pattern(pattern), inside)
    assert not re.fullmatch(search_pattern(pattern), outside)
