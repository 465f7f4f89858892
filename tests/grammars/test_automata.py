"""Questions about sets of texts, answered as Python's own engine answers them for each text."""

import re
import string
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grammars import automata
from grammars.regex import full_pattern
from grammars.regex_syntax import RegexRefused
from tests.grammars.expressions import EXPRESSIONS, TEXTS

PATTERNS = EXPRESSIONS.map(full_pattern)
SMALL = ["".join(text) for n in range(4) for text in product("ab0-.", repeat=n)]


def _is_matched(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


@given(patterns=st.lists(PATTERNS, min_size=1, max_size=3), text=TEXTS)
def test_an_intersection_matches_what_all_match(patterns: list[str], text: str) -> None:
    whole = automata.intersection(patterns)
    assert _is_matched(whole, text) == all(_is_matched(pattern, text) for pattern in patterns)


@given(pattern=PATTERNS, text=TEXTS)
def test_a_complement_matches_what_the_expression_does_not(pattern: str, text: str) -> None:
    try:
        complement = automata.complement(pattern)
    except RegexRefused:
        assume(False)
    assert _is_matched(complement, text) != _is_matched(pattern, text)


@given(pattern=PATTERNS)
def test_an_expression_and_its_complement_share_nothing_and_leave_nothing_out(pattern: str) -> None:
    complement = automata.complement(pattern)
    assert automata.are_disjoint(pattern, complement)
    assert automata.includes(f"(?:{pattern})|(?:{complement})", r"[\s\S]*")


@given(a=PATTERNS, b=PATTERNS)
def test_expressions_are_disjoint_exactly_if_their_intersection_is_empty(a: str, b: str) -> None:
    is_empty = automata.texts(automata.intersection([a, b]), 0) == []
    assert automata.are_disjoint(a, b) == is_empty
    if automata.are_disjoint(a, b):
        assert not any(_is_matched(a, text) and _is_matched(b, text) for text in SMALL)


@given(outer=PATTERNS, inner=PATTERNS)
def test_inclusion_is_having_nothing_outside(outer: str, inner: str) -> None:
    outside = automata.intersection([inner, automata.complement(outer)])
    assert automata.includes(outer, inner) == (automata.texts(outside, 0) == [])
    if automata.includes(outer, inner):
        assert all(_is_matched(outer, text) for text in SMALL if _is_matched(inner, text))


@given(pattern=PATTERNS, text=TEXTS)
def test_matching_is_pythons_matching(pattern: str, text: str) -> None:
    assert automata.matches(pattern, text) == _is_matched(pattern, text)


@given(words=st.lists(st.text(alphabet="abc", max_size=4), min_size=1, max_size=12))
def test_all_texts_of_a_finite_expression_are_listed(words: list[str]) -> None:
    pattern = "|".join(f"(?:{word})" for word in words)
    assert automata.texts(pattern, 12) == sorted(set(words))
    if len(set(words)) > 1:
        assert automata.texts(pattern, len(set(words)) - 1) is None


@given(pattern=PATTERNS)
def test_texts_are_those_that_match_and_none_is_left_out(pattern: str) -> None:
    found = automata.texts(pattern, 200)
    if found is not None:
        assert all(_is_matched(pattern, text) for text in found)
        assert {text for text in SMALL if _is_matched(pattern, text)} <= set(found)


@given(pattern=PATTERNS)
def test_lengths_are_those_of_the_shortest_and_the_longest_text(pattern: str) -> None:
    shortest, longest = automata.lengths(pattern)
    any_text = r"[\s\S]"
    assert automata.includes(f"{any_text}{{{shortest},{'' if longest is None else longest}}}", pattern)
    assert not automata.are_disjoint(pattern, f"{any_text}{{{shortest}}}")
    if longest is None:
        assert not automata.are_disjoint(pattern, f"{any_text}{{20,}}")
    else:
        assert not automata.are_disjoint(pattern, f"{any_text}{{{longest}}}")


@pytest.mark.parametrize(
    ("patterns", "short"),
    [
        (["[a-z]{1,255}", "[a-z]*"], "[a-z]{1,255}"),
        (["[a-z]*", r"[\s\S]{1,20}"], "[a-z]{1,20}"),
        (["[a-z][0-9a-z]*", r"[\s\S]{1,63}"], "[a-z][0-9a-z]{0,62}"),
        (["[a-m]*", "[k-z]*"], "[k-m]*"),
        (["a", "a"], "a"),
        (["a", "b"], r"[^\s\S]"),
        ([], r"[\s\S]*"),
    ],
)
def test_counted_repetitions_stay_counted(patterns: list[str], short: str) -> None:
    assert automata.intersection(patterns) == short


def test_unicode_categories_are_known() -> None:
    assert automata.are_disjoint(r"[\p{L}]", r"[\p{Nd}]")
    assert automata.includes(r"[\p{L}]", r"[\p{Lu}]")
    assert automata.are_disjoint(r"[\p{Lu}]", "[a-zé]")
    unassigned = "\u0378"
    for pattern in (r"[\p{L}]", r"[\P{L}]", r"[^\p{L}]", automata.complement(r"[\p{L}]*")):
        assert not automata.matches(pattern, unassigned), "an assignment of a later Unicode must not make us loose"


@pytest.mark.parametrize("pattern", [r"[\p{Script=Greek}]*", r"[\p{Alphabetic}]"])
def test_unicode_properties_without_a_table_are_refused(pattern: str) -> None:
    with pytest.raises(RegexRefused, match="categories"):
        automata.complement(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:a|b)*a(?:a|b){24}",
        "(?:(?:a{1,100}){1,100}){1,100}",
        "(?:(?:a{1,30}){1,20}){1,30}",
        "(?:" + "|".join(f"(?:{a}{{1,50}})" for a in string.ascii_lowercase) + "){1,40}",
    ],
)
def test_expressions_with_enormous_automata_are_refused(pattern: str) -> None:
    with pytest.raises(RegexRefused):
        automata.complement(pattern)


def test_a_thousand_alternatives_are_held() -> None:
    words = [f"word{i * 7919 % 10007}" for i in range(2000)]
    some, others = "|".join(words[:1000]), "|".join(words[1000:])
    assert automata.are_disjoint(some, others)
    assert not automata.are_disjoint(some, f"{others}|{words[5]}")
    assert automata.texts(some, 1000) == sorted(words[:1000])
