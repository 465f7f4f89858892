import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.cheap import NAMES, cheap_features
from router_model.encoder import Encoder
from router_model.facts import RequestFacts
from router_model.features import Kind, extract, extract_outcome
from router_model.ngrams import BITS, MAX_BYTES, N_COLUMNS, hashed_ngrams
from router_model.outcomes import Outcome
from router_model.prefill import PrefillState
from tests.router_model.worlds import make_outcomes


def cheap(text: str, facts: RequestFacts | None = None) -> dict[str, float]:
    return dict(zip(NAMES, cheap_features(text, facts or RequestFacts()).tolist(), strict=True))


@given(st.text(max_size=300))
def test_any_text_has_finite_features_in_both_forms(text: str) -> None:
    features = cheap_features(text, RequestFacts())
    assert features.shape == (len(NAMES),)
    assert np.isfinite(features).all()
    row = hashed_ngrams(text)
    assert (np.diff(row.columns) > 0).all()
    assert (row.values >= 1).all()
    if row.columns.size:
        assert row.columns.min() >= 0
        assert row.columns.max() < N_COLUMNS


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
    assert cheap("Which?\nA. one\nB. two")["options"] == pytest.approx(np.log(3))
    assert cheap("Book", RequestFacts(n_tools=3))["log_tools"] == pytest.approx(np.log(4))


def test_word_hashes_ignore_case_and_place_and_count_repeats() -> None:
    def words(text: str) -> dict[int, float]:
        row = hashed_ngrams(text)
        return {int(c): float(v) for c, v in zip(row.columns, row.values, strict=True) if c < 1 << BITS}

    assert words("Rome") == words("  rome!")
    assert len(words("rome paris")) == 3
    assert set(words("rome")) < set(words("from paris to rome"))
    assert max(words("rome, rome, rome").values()) == 3
    assert words("paris rome") != words("rome paris")


def plain_hashes(text: str) -> Counter[int]:
    """The definition of the hashed n-grams, one integer at a time."""
    base, pair, mix = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93
    data = text.lower().encode()

    def polynomial(run: bytes) -> int:
        return int(sum((byte + 1) * base**k for k, byte in enumerate(run)) % 2**64)

    def column(value: int) -> int:
        return (value * mix % 2**64) >> (64 - BITS)

    words = [polynomial(word) for word in re.findall(rb"[a-z0-9\x80-\xff]+", data)]
    pairs = [(a * pair + (b ^ (b >> 29))) % 2**64 for a, b in pairwise(words)]
    runs = [polynomial(data[k : k + 4]) for k in range(len(data) - 3)]
    return Counter([*map(column, words + pairs), *((1 << BITS) + column(run) for run in runs)])


@given(st.text(st.sampled_from("aAzZ019 .,é日\n_"), max_size=60))
def test_hashed_ngrams_are_those_of_the_plain_definition(text: str) -> None:
    row = hashed_ngrams(text)
    assert dict(zip(row.columns.tolist(), row.values.tolist(), strict=True)) == plain_hashes(text)


def test_a_long_text_costs_no_more_than_its_ends() -> None:
    ends = "a" * (MAX_BYTES // 2), "b" * (MAX_BYTES // 2)
    long = hashed_ngrams(ends[0] + "middle words " * 50_000 + ends[1])
    assert long.columns.size < 50


def test_a_prompt_without_state_is_of_kind_text_and_with_one_of_kind_state() -> None:
    state = PrefillState(np.full((2, 2, 3), 5, np.float32), 1.0, 2.0)
    text, full = extract("hi", RequestFacts()), extract("hi", RequestFacts(), state)
    assert (text.kind, text.state, text.first_token) == (Kind.TEXT, None, None)
    assert (full.kind, full.ngrams) == (Kind.STATE, None)
    assert full.state is not None
    np.testing.assert_allclose(np.linalg.norm(full.state.reshape(4, 3), axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(text.cheap, full.cheap)


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
