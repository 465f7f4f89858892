import re
from collections.abc import Callable
from string import ascii_uppercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.marks import (
    ALL_OF,
    BLANK,
    CODE,
    MATHS,
    blanks,
    code_marks,
    count_characters,
    maths_marks,
    references_to_options,
)

WORDS = "def class SELECT assert sqrt log percent all All none Both either of the these A D are not x"
SIGNS = r"{ } ; ( ) () = > < => -> :: : ::: ` </ > <b> </class> \ \sqrt \pi $ * ^ √ ≤ ± _ __ . .. ... …… é ² ٣ Ä"
PIECES = f"{WORDS} {SIGNS}".split()
TEXTS = st.lists(st.sampled_from([*PIECES, " ", "\n"]), max_size=40).map("".join) | st.lists(
    st.sampled_from(PIECES), max_size=40
).map(" ".join)


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        (CODE, code_marks),
        (MATHS, maths_marks),
        (BLANK, lambda text, _: blanks(text)),
        (ALL_OF, lambda text, words: references_to_options(text, {word.lower() for word in words})),
    ],
    ids=["code", "maths", "blank", "all of"],
)
def test_marks_are_counted_as_their_expression_finds_them(
    expression: re.Pattern[str], count: Callable[[str, list[str]], int]
) -> None:
    @given(TEXTS)
    def counts(text: str) -> None:
        assert count(text, re.findall(r"\w+", text)) == len(expression.findall(text))

    counts()


@given(TEXTS)
def test_characters_are_counted_as_their_test_finds_them(text: str) -> None:
    assert count_characters(text, str.isdigit, digits.encode()) == sum(map(str.isdigit, text))
    assert count_characters(text, str.isupper, ascii_uppercase.encode()) == sum(map(str.isupper, text))
