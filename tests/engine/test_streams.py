"""One request's stream: deltas are together the text; stop strings, end tokens and limits cut it in the right place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.detokenizer import IncrementalDecoder
from engine.generation import Generation
from engine.messages import Delta
from engine.request import FinishReason, Request, SamplingParams
from engine.tokenizer import Tokenizer
from tests.engine.checkpoints import END_ID, save_tokenizer

TOKENS = st.lists(st.integers(4, 511), max_size=40)
STOPS = st.lists(st.text("abe \n\u00fc", min_size=1, max_size=3), max_size=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("streams")
    save_tokenizer(folder)
    return Tokenizer.from_folder(folder)


def stream(
    tokenizer: Tokenizer, tokens: list[int], cuts: list[bool], window: int = 1000, **params: object
) -> tuple[Generation, list[Delta]]:
    """Feed tokens until the answer is over; a delta is taken wherever `cuts` says so."""
    generation = Generation(
        "id",
        Request("id", [1, 2]),
        SamplingParams(**params),  # type: ignore[arg-type]
        seed=0,
        decoder=IncrementalDecoder(tokenizer),
        end_ids=frozenset([END_ID]),
        window=window,
    )
    deltas = []
    for i, token in enumerate(tokens):
        if generation.reason is None:
            generation.accept(token)
            if cuts[i % len(cuts)] and (delta := generation.take_delta()):
                deltas.append(delta)
    generation.end(FinishReason.CANCELLED)
    if delta := generation.take_delta():
        deltas.append(delta)
    return generation, deltas


@given(tokens=TOKENS, cuts=st.lists(st.booleans(), min_size=1, max_size=5))
def test_deltas_are_together_the_decoded_answer(tokenizer: Tokenizer, tokens: list[int], cuts: list[bool]) -> None:
    generation, deltas = stream(tokenizer, tokens, cuts)
    text = tokenizer.decode(tokens)
    assert "".join(delta.text for delta in deltas) == generation.finished().text == text
    assert [token for delta in deltas for token in delta.token_ids] == tokens
    for before_last in deltas[:-1]:
        assert before_last.text.count("\ufffd") <= text.count("\ufffd")


@given(tokens=TOKENS, cuts=st.lists(st.booleans(), min_size=1, max_size=5), stops=STOPS, include=st.booleans())
def test_no_part_of_a_stop_string_goes_out(
    tokenizer: Tokenizer, tokens: list[int], cuts: list[bool], stops: list[str], include: bool
) -> None:
    generation, deltas = stream(tokenizer, tokens, cuts, stop=tuple(stops), include_stop_str=include)
    finished = generation.finished()
    whole = tokenizer.decode(finished.token_ids)
    assert "".join(delta.text for delta in deltas) == finished.text
    found = finished.stop_match
    if isinstance(found, str):
        assert finished.reason is FinishReason.STOP
        assert found in stops
        assert whole.startswith(finished.text)
        assert finished.text.endswith(found) if include else whole.startswith(finished.text + found)
        before = finished.text[: len(finished.text) - len(found)] if include else finished.text
        assert not any(stop in before for stop in stops)
    else:
        assert finished.text == whole
        assert not any(stop in whole for stop in stops)


@given(tokens=TOKENS, at=st.integers(0, 40))
def test_an_end_token_ends_and_says_nothing(tokenizer: Tokenizer, tokens: list[int], at: int) -> None:
    generation, _ = stream(tokenizer, [*tokens[:at], END_ID, *tokens[at:]], [True])
    finished = generation.finished()
    assert (finished.reason, finished.token_ids) == (FinishReason.STOP, [*tokens[:at], END_ID])
    assert finished.text == tokenizer.decode(tokens[:at])
    assert finished.stop_match is None


@given(tokens=TOKENS, stop=st.integers(4, 511), include=st.booleans())
def test_a_stop_token_ends_and_is_named(tokenizer: Tokenizer, tokens: list[int], stop: int, include: bool) -> None:
    before = [token for token in tokens if token != stop]
    params = {"stop_token_ids": (stop,), "include_stop_str": include}
    generation, _ = stream(tokenizer, [*before, stop, *tokens], [True, False], **params)
    finished = generation.finished()
    assert (finished.reason, finished.stop_match) == (FinishReason.STOP, stop)
    assert finished.token_ids == [*before, stop]
    assert finished.text == tokenizer.decode([*before, stop] if include else before)


@given(tokens=st.lists(st.integers(4, 511), min_size=12, max_size=20), n=st.integers(1, 12), room=st.integers(1, 12))
def test_the_smaller_of_max_tokens_and_the_window_ends_by_length(
    tokenizer: Tokenizer, tokens: list[int], n: int, room: int
) -> None:
    finished = stream(tokenizer, tokens, [True], window=2 + room, max_tokens=n)[0].finished()
    assert finished.reason is FinishReason.LENGTH
    assert finished.token_ids == tokens[: min(n, room)]


def test_stop_strings_are_not_looked_for_before_min_tokens(tokenizer: Tokenizer) -> None:
    a = tokenizer.encode("a")
    generation, _ = stream(tokenizer, a * 6, [True], stop=("a",), min_tokens=4)
    assert generation.finished().text == "aaa"
    assert len(generation.finished().token_ids) == 4
