import importlib.machinery
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from wordllama.inference import WordLlamaInference

from router_model.question import Question
from router_model.static_embedding import (
    NAMES,
    TOKENIZER,
    WEIGHTS,
    NoStaticEmbedding,
    StaticEmbedding,
    static_embedding,
)


def test_vectors_are_those_that_the_package_itself_computes() -> None:
    texts = ["Which river crosses Paris?", "12 + 7 = ?", "日本 and naïve"]
    mine = static_embedding()
    theirs = WordLlamaInference(mine.vectors, Tokenizer.from_str(mine.tokenizer.to_str())).embed(texts)
    ours = np.stack([static_embedding().embed(Question(text)).stem for text in texts])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_like_texts_have_like_vectors() -> None:
    def unit(text: str) -> np.ndarray:
        stem = static_embedding().embed(Question(text)).stem
        return stem / np.linalg.norm(stem)

    river, stream, tax = map(unit, ("a river in the valley", "a stream in the mountains", "the income tax of a firm"))
    assert river @ stream > river @ tax + 0.2


def test_the_vector_of_the_options_is_the_mean_over_them() -> None:
    embedding = static_embedding()
    options = ("the red house", "blue")
    together = embedding.embed(Question("Which?", options)).options
    alone = np.mean([embedding.embed(Question(option)).stem for option in options], axis=0)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def shape(question: Question) -> dict[str, float]:
    return dict(zip(NAMES, static_embedding().embed(question).shape.tolist(), strict=True))


def test_rare_words_and_like_options_show() -> None:
    common, rare = shape(Question("What is the time of day?")), shape(Question("Phlogiston deliquesces anhydrously"))
    assert rare["rarity"] > common["rarity"]
    assert rare["tokens_per_word"] > common["tokens_per_word"]
    like = shape(Question("Which?", ("a red car", "a red bus", "a red van")))
    unlike = shape(Question("Which?", ("a red car", "seventeen", "the French senate")))
    assert like["options_alike"] > unlike["options_alike"]
    fits = shape(Question("Which animal barks?", ("a barking animal", "a bank")))
    assert fits["best_option_to_stem"] > fits["options_to_stem"]
    assert fits["margin_to_stem"] > 0


@given(st.text(max_size=80), st.lists(st.text(max_size=20), max_size=4))
def test_any_question_has_finite_vectors(stem: str, options: list[str]) -> None:
    vectors = static_embedding().embed(Question(stem, tuple(options)))
    for part in (vectors.stem, vectors.options, vectors.shape):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()


def test_without_its_package_the_embedding_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NoStaticEmbedding, match="install wordllama"):
        StaticEmbedding.load()
    spec = importlib.machinery.ModuleSpec("wordllama", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(NoStaticEmbedding, match="does not hold"):
        StaticEmbedding.load()
    for name in (WEIGHTS, TOKENIZER):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(NoStaticEmbedding, match="does not hold"):
        StaticEmbedding.load()
