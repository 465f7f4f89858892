"""What llguidance reads inside JSON never holds a character that its class leaves out."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grammars.errors import ConstraintRefused
from grammars.llguidance_backend import LLGuidanceBackend
from grammars.quoted_patterns import quoted, quoted_without_u
from grammars.regex import full_pattern
from grammars.vocabulary import Vocabulary

CONTROLS = "".join(map(chr, range(32)))
MEMBERS = st.sampled_from(
    [r"\x00-\x1F", r"\x00-\x0F", r"\x09-\x1F", r"\x0A", "a-z", r"\"", r"\\", "!", "é", r"\u2028-\uFFFD"]
)
CLASSES = st.tuples(st.sampled_from(["[", "[^"]), st.lists(MEMBERS, min_size=1, max_size=4)).map(
    lambda parts: f"{parts[0]}{''.join(parts[1])}]"
)
EXPRESSIONS = st.lists(CLASSES, min_size=1, max_size=3).map("|".join).map(lambda inside: f"(?:{inside})*") | CLASSES


@pytest.fixture(scope="module")
def backend(tokenizer: Any) -> LLGuidanceBackend:
    """llguidance over the bytes."""
    return LLGuidanceBackend(Vocabulary(tokenizer))


def _takes(backend: LLGuidanceBackend, pattern: str, text: str) -> bool:
    state = backend.compile("start: %json " + json.dumps({"type": "string", "pattern": f"^(?:{pattern})$"}))
    return all(state.advance(byte) for byte in json.dumps(text, ensure_ascii=False).encode()) and state.is_accepting


@settings(max_examples=40, deadline=None)
@given(expression=EXPRESSIONS)
def test_no_character_outside_a_class_is_let_through(backend: LLGuidanceBackend, expression: str) -> None:
    pattern = full_pattern(expression)
    written = quoted(pattern)
    for char in CONTROLS + '"\\!a~é':
        expected = re.fullmatch(pattern, char) is not None
        if _takes(backend, written, char):
            assert expected
        else:
            assert not expected or char == "\x00"


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ('[^"]*', r'[^\x00"]*'),
        (r"[^\\]", r"[^\x00\\]"),
        (r'[^"\x00]|\x00', r'[^\x00"]'),
        (r"[\x00-\x1F]?\x00?", r"[\x01-\x1F]?"),
        (r'[^"\p{L}]', r'[^\p{L}\x00"]'),
    ],
)
def test_a_class_at_fault_loses_the_nul(pattern: str, written: str) -> None:
    assert quoted(pattern) == written


@pytest.mark.parametrize("pattern", [r"[\s\S]*", "[a-z]+", r"[^\x0A\x0D]*", r"[^a]", r"\x00", r'[^"\x0B]', r"[\p{L}]*"])
def test_other_expressions_stay_as_they_are(pattern: str) -> None:
    assert quoted(pattern) == pattern


def test_an_expression_that_needs_a_nul_beside_such_a_class_matches_nothing() -> None:
    assert quoted(r"\x00[\x01-\x1F]") == r"[^\s\S]"


# Neighbours between which llguidance 1.9 forgets what it cannot spell.
@pytest.mark.parametrize("around", [r"[\s\S]*{}[\s\S]*", "a?{}b*", "{}", "(?:{}|a)"])
@pytest.mark.parametrize("char", [r"\x01", r"\x7F", r"[\x01\x02]", r"b\x1Fb"])
def test_what_has_no_escape_by_letter_is_left_out_where_there_are_none_by_number(
    backend: LLGuidanceBackend, around: str, char: str
) -> None:
    pattern = around.format(f"(?:{char})")
    schema = {"type": "string", "pattern": f"^(?:{quoted_without_u(full_pattern(pattern))})$"}
    options = {"x-guidance": {"json_allowed_escapes": 'nrbtf\\"'}}
    try:
        state = backend.compile("start: %json " + json.dumps(schema | options))
    except ConstraintRefused:
        return  # no text is left
    for text in ("", "a", "b", "bb", "aba", "\x01", "\x7f"):
        fork = state.fork()
        taken = all(fork.advance(byte) for byte in json.dumps(text, ensure_ascii=False).encode()) and fork.is_accepting
        assert not taken or re.fullmatch(pattern, text), text
