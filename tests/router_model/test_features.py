import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.cheap import MAX_CHARS, NAMES, WORD_KINDS, cheap_features
from router_model.encoder import Encoder
from router_model.facts import RequestFacts
from router_model.features import Features, Kind, extract, extract_cheap, extract_outcome
from router_model.outcomes import Outcome
from router_model.prefill import PrefillState
from tests.router_model.worlds import make_outcomes


def cheap(text: str, facts: RequestFacts | None = None) -> dict[str, float]:
    return dict(zip(NAMES, cheap_features(text, facts or RequestFacts()).tolist(), strict=True))


@given(st.text(max_size=300))
def test_any_text_has_finite_cheap_features(text: str) -> None:
    features = cheap_features(text, RequestFacts())
    assert features.shape == (len(NAMES),)
    assert np.isfinite(features).all()


def test_cheap_features_see_what_they_are_named_for() -> None:
    plain = cheap("Book a table")
    assert cheap("Book a table, and then call me")["joins"] > plain["joins"]
    assert cheap("Book a table?")["ends_in_question"] == 1
    assert cheap("BOOK A TABLE")["capitals_share"] > plain["capitals_share"]
    assert cheap("Book 12 tables")["digits_share"] > plain["digits_share"]
    assert cheap("def f(): return {}")["code_marks"] > plain["code_marks"]
    assert cheap("x^2 + 3x = 4")["maths_marks"] > plain["maths_marks"]
    assert cheap("Do not book")["negations"] > plain["negations"]
    assert cheap("Réserve 日本")["non_ascii_share"] > 0
    assert cheap("It is NOT one")["loud_negations"] > cheap("It is not one")["loud_negations"]
    assert cheap("He ran ____ miles")["blanks"] > 0
    assert cheap("I, II and III")["roman_numerals"] > 0
    assert cheap("25% of 3/4")["percentages"] == cheap("25% of 3/4")["fractions"] > 0
    assert cheap("in 1917")["years"] > cheap("in 917")["years"]
    assert cheap("The union of the ambition")["abstract_words"] > plain["abstract_words"]
    assert cheap("Book", RequestFacts(n_tools=3))["log_tools"] == pytest.approx(np.log(4))


def test_a_kind_of_words_is_counted_wherever_its_words_stand() -> None:
    for kind, words in WORD_KINDS.items():
        word = min(words)
        assert cheap(f"{word.upper()}, {word}!")[kind] >= cheap(word)[kind] > cheap("xyzzy")[kind] == 0


def test_options_are_described_and_a_text_without_any_has_zeros() -> None:
    one = cheap("What is 2 + 2?\nA. 3\nB. 4\nC. 15\nD. none of the numbers above")
    assert one["options"] == 4
    assert one["options_with_number"] == one["options_of_digits"] == 0.75
    assert one["options_longest"] > one["options_shortest"]
    assert one["stem_ends_in_question"] == 1
    assert one["stem_log_numbers"] == pytest.approx(np.log(3))
    same = cheap("Which?\nA. the red one\nB. the blue one")
    assert same["options_same_start"] == same["options_overlap"] == pytest.approx(0.5)
    assert not any(value for name, value in cheap("A. Lincoln was president").items() if name.startswith("options"))


def test_a_long_text_is_described_by_its_ends() -> None:
    middle = "middle " * MAX_CHARS
    assert cheap(f"start {middle}{middle} 7?")["ends_in_question"] == 1
    short, long = cheap(f"start {middle} end"), cheap(f"start {middle}{middle} end")
    assert long["log_chars"] > short["log_chars"]
    assert long["distinct_words"] == short["distinct_words"]


def test_a_prompt_without_state_is_of_kind_text_and_with_one_of_kind_state() -> None:
    state = PrefillState(np.full((2, 2, 3), 5, np.float32), 1.0, 2.0)
    text, full = extract("hi", RequestFacts()), extract("hi", RequestFacts(), state)
    assert (text.kind, text.state, text.first_token) == (Kind.TEXT, None, None)
    assert (full.kind, full.vectors) == (Kind.STATE, None)
    assert full.state is not None
    np.testing.assert_allclose(np.linalg.norm(full.state, axis=1), 1, rtol=1e-6)
    assert text.vectors is not None
    np.testing.assert_array_equal(text.cheap, full.cheap)


def test_an_embedding_makes_features_of_its_own_kind() -> None:
    features = extract("hi", RequestFacts(), embedding=np.array([3, 4], np.float32))
    assert features.kind is Kind.EMBEDDING
    assert features.embedding is not None
    np.testing.assert_allclose(features.embedding, [0.6, 0.8])


@pytest.mark.parametrize("kind", list(Kind))
def test_packed_features_come_back_within_the_rounding_and_without_the_words(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    text = "Which river crosses the secretword?\nA. the Seine\nB. the Main"
    state = PrefillState(rng.normal(size=(3, 2, 64)).astype(np.float32), 1.5, 0.25) if kind is Kind.STATE else None
    embedding = rng.normal(size=48).astype(np.float32) if kind is Kind.EMBEDDING else None
    features = extract(text, RequestFacts(prompt_tokens=1_000), state, embedding)
    data = features.pack()
    assert b"secretword" not in data
    again = Features.unpack(data)
    assert again.kind is kind
    np.testing.assert_allclose(again.cheap, features.cheap, rtol=1e-3, atol=1e-3)
    for name in ("state", "first_token", "embedding"):
        before, after = getattr(features, name), getattr(again, name)
        assert (before is None) == (after is None)
        if before is not None:
            assert after.shape == before.shape
            np.testing.assert_allclose(after, before, atol=np.abs(before).max() / 200)
    if kind is Kind.TEXT:
        assert features.vectors is not None
        assert again.vectors is not None
        np.testing.assert_allclose(
            again.vectors.stem, features.vectors.stem, atol=np.abs(features.vectors.stem).max() / 200
        )
        np.testing.assert_allclose(again.vectors.shape, features.vectors.shape, rtol=1e-3, atol=1e-3)
    assert again.pack() == Features.unpack(again.pack()).pack()


@given(st.binary(max_size=200))
def test_bytes_that_are_no_packed_features_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        Features.unpack(data)


def test_damaged_or_older_packed_features_are_refused() -> None:
    packed = msgspec.msgpack.decode(extract("hi", RequestFacts(), embedding=np.ones(4, np.float32)).pack())
    version, kind, cheap_part, first, shape, dense = packed
    for broken, message in (
        ([1, kind, cheap_part, first, shape, dense], "schema 1"),
        ([version, kind, cheap_part[:-2], first, shape, dense], "cheap features"),
        ([version, kind, cheap_part[:-1], first, shape, dense], "damaged"),
        ([version, kind, cheap_part, first, shape, {"embedding": [[1, 5], *dense["embedding"][1:]]}], "damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            Features.unpack(msgspec.msgpack.encode(broken))


def test_a_logged_row_is_read_from_its_packed_features() -> None:
    features = extract("a text", RequestFacts(), PrefillState(np.ones((1, 2, 4), np.float32), 1.0, 2.0))
    row = Outcome("a", "a", "", 0, 1, features=features.pack())
    read = extract_outcome(row, Kind.STATE)
    np.testing.assert_array_equal(read.cheap, Features.unpack(features.pack()).cheap)
    with pytest.raises(ValueError, match="features of kind state, not text"):
        extract_outcome(row, Kind.TEXT)


def test_a_row_of_text_has_no_embedding_without_an_encoder() -> None:
    with pytest.raises(ValueError, match="sentence encoder"):
        extract_outcome(Outcome("a", "a", "t", 0, 1), Kind.EMBEDDING)


def test_a_front_model_needs_the_cheap_features_alone() -> None:
    text, facts = "Which?\nA. one\nB. two", RequestFacts(n_tools=2)
    np.testing.assert_array_equal(extract_cheap(text, facts).cheap, extract(text, facts).cheap)


def test_a_state_router_refuses_an_outcome_without_state() -> None:
    with pytest.raises(ValueError, match="has no prefill state"):
        extract_outcome(Outcome("a", "a", "t", 0, 1), Kind.STATE)


@pytest.mark.parametrize("with_state", [True, False])
def test_encoded_training_rows_are_standardised_and_do_not_depend_on_their_neighbours(with_state: bool) -> None:
    kind = Kind.STATE if with_state else Kind.TEXT
    features = [extract_outcome(one, kind) for one in make_outcomes(300, with_state=with_state)]
    encoder = Encoder.fit(features, np.random.default_rng(0))
    encoded = encoder.encode_all(features)
    assert encoded.shape == (300, encoder.n_outputs)
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-2)
    deviations = encoded.std(axis=0)
    assert (np.isclose(deviations, 1, atol=0.05) | (deviations < 1e-3)).all()
    np.testing.assert_allclose(encoder.encode(features[7]), encoded[7], atol=1e-5)


def test_an_encoder_refuses_features_of_another_kind_or_size() -> None:
    features = [extract_outcome(one, Kind.STATE) for one in make_outcomes(60, with_state=True)]
    encoder = Encoder.fit(features, np.random.default_rng(0))
    with pytest.raises(ValueError, match="another kind"):
        encoder.encode(extract("hi", RequestFacts()))
    wider = PrefillState(np.ones((2, 2, 9), np.float32), 0.0, 0.0)
    with pytest.raises(ValueError, match="trained on 32"):
        encoder.encode(extract("hi", RequestFacts(), wider))
