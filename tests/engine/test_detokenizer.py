"""Streams: deltas add up to the whole text, no broken characters, and no part of a stop string ever leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.detokenizer import IncrementalDecoder, StopMatch, StopMatcher
from engine.tokenizer import Tokenizer
from tests.engine.checkpoints import save_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Tokenizer.from_folder(folder)


token_lists = st.lists(st.lists(st.integers(0, 520), max_size=3), max_size=30)


@given(token_lists)
def test_deltas_of_any_tokens_are_together_the_decoded_text(tokenizer: Tokenizer, pushes: list[list[int]]) -> None:
    decoder = IncrementalDecoder(tokenizer)
    deltas = [decoder.push(ids) for ids in pushes]
    whole = tokenizer.decode(token for ids in pushes for token in ids)
    assert "".join(deltas) + decoder.flush() == whole


@given(st.text())
def test_text_cut_into_single_tokens_never_shows_a_broken_character(tokenizer: Tokenizer, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode().replace("\ufffd", "")
    decoder = IncrementalDecoder(tokenizer)
    deltas = [decoder.push([token]) for token in tokenizer.encode_plain(text)]
    assert "".join(deltas) == text
    assert decoder.flush() == ""


def test_an_emoji_appears_with_its_last_byte_and_not_before(tokenizer: Tokenizer) -> None:
    decoder = IncrementalDecoder(tokenizer)
    deltas = [decoder.push([token]) for token in tokenizer.encode("🚀")]
    assert len(deltas) > 1
    assert deltas[:-1] == [""] * (len(deltas) - 1)
    assert deltas[-1] == "🚀"


def stream(matcher: StopMatcher, pieces: list[str]) -> tuple[list[str], StopMatch | None]:
    out = list[str]()
    for piece in pieces:
        result = matcher.push(piece)
        if isinstance(result, StopMatch):
            return [*out, result.text], result
        out.append(result)
    return [*out, matcher.flush()], None


def first_match(text: str, stops: list[str]) -> tuple[int, str] | None:
    """By the definition: look at every prefix of the text; the longest stop string that ends it wins."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return end - len(stop), stop
    return None


letters = st.text("ab", min_size=0, max_size=4)
stop_lists = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3, unique=True)


@given(st.lists(letters, max_size=10), stop_lists, st.booleans())
def test_the_stream_ends_where_the_definition_says(pieces: list[str], stops: list[str], include: bool) -> None:
    deltas, match = stream(StopMatcher(stops, include_stop=include), pieces)
    text, expected = "".join(pieces), first_match("".join(pieces), stops)
    if expected is None:
        assert match is None
        assert "".join(deltas) == text
    else:
        at, stop = expected
        assert match is not None
        assert match.stop == stop
        assert "".join(deltas) == text[:at] + (stop if include else "")


@given(st.lists(letters, max_size=10), stop_lists)
def test_no_more_is_held_back_than_could_still_become_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    matcher, seen, sent = StopMatcher(stops), "", ""
    for piece in pieces:
        seen += piece
        result = matcher.push(piece)
        if isinstance(result, StopMatch):
            return
        sent += result
        held = seen[len(sent) :]
        beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        longest = max((b for b in beginnings if seen.endswith(b)), key=len, default="")
        assert held == longest


def test_skipped_text_neither_ends_the_stream_nor_begins_a_stop_string() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.skip("an END, E") == "an END, E"
    assert matcher.push("ND goes on, EN") == "ND goes on, "
    assert matcher.skip("D") == "END"
    assert matcher.push("END") == StopMatch("", "END")
