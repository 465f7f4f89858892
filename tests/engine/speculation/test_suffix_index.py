"""The index of a context's runs, held to the definition that scans the whole text."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.speculation.suffix_index import LONGEST_KEY, LONGEST_MATCH, SuffixIndex

texts = st.lists(st.integers(0, 3), max_size=60)
keys = st.integers(1, 6)


def scanned(tokens: Sequence[int], context: Sequence[int], longest_key: int) -> tuple[int, int]:
    """What `find` means: the last place of the longest run, and how far back the tokens before it agree."""

    def agrees(place: int, length: int) -> bool:
        return length <= min(place, len(context)) and all(
            tokens[place - i] == context[-i] for i in range(1, length + 1)
        )

    for length in range(longest_key, 0, -1):
        places = [place for place in range(len(tokens)) if agrees(place, length)]
        if places:
            return max(n for n in range(LONGEST_MATCH + 1) if agrees(places[-1], n)), places[-1]
    return 0, len(tokens)


@given(texts, st.lists(st.integers(0, 4), max_size=30), keys)
def test_any_context_is_found_where_a_scan_of_the_text_finds_it(
    text: list[int], context: list[int], longest_key: int
) -> None:
    assert SuffixIndex(text, longest_key).find(context) == scanned(text, context, longest_key)


@given(texts, st.lists(st.integers(0, 3), max_size=6), keys)
def test_the_end_of_the_text_is_never_found_at_itself(text: list[int], drafted: list[int], longest_key: int) -> None:
    index = SuffixIndex(text, longest_key)
    context = [*text, *drafted]
    length, place = index.find(context)
    assert (length, place) == scanned(text, context, longest_key)
    assert (length == 0) == (index.read(place, 1) == [])


@given(st.lists(st.lists(st.integers(0, 3), max_size=25), max_size=8), keys)
def test_a_text_that_comes_in_pieces_is_indexed_like_one_that_comes_whole(
    pieces: list[list[int]], longest_key: int
) -> None:
    text = [token for piece in pieces for token in piece]
    whole, grown, single = SuffixIndex(text, longest_key), SuffixIndex((), longest_key), SuffixIndex((), longest_key)
    for piece in pieces:
        grown.extend(piece)
    for token in text:
        single.extend([token])
    contexts = [text[:end] for end in range(len(text) + 1)]
    assert [index.find(c) for c in contexts for index in (grown, single)] == [
        whole.find(c) for c in contexts for _ in range(2)
    ]


def test_of_equal_matches_the_most_recent_one_counts_and_a_longer_one_beats_it() -> None:
    index = SuffixIndex([1, 2, 7, 9, 2, 8, 9, 2, 5])
    assert index.find([9, 2]) == (2, 8)
    assert index.find([1, 2]) == (2, 2)
    assert index.find([4]) == (0, 9)


def test_a_match_is_counted_further_back_than_runs_are_kept() -> None:
    text = list(range(100))
    assert SuffixIndex(text).find(text[40:50]) == (10, 50)
    assert SuffixIndex(text).find(text[10:50]) == (LONGEST_MATCH, 50)


@given(texts)
def test_memory_is_linear_in_the_text(text: list[int]) -> None:
    index = SuffixIndex(text)
    assert sum(map(len, index._places)) <= LONGEST_KEY * len(text)


def test_an_index_without_runs_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="longest_key is 0: use 1 or more"):
        SuffixIndex((), 0)
