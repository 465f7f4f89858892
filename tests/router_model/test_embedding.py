from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from router_model import commands
from router_model.embedding import MAX_TOKENS, NoEncoder, SentenceEncoder
from router_model.facts import RequestFacts
from router_model.features import Kind, extract
from router_model.outcomes import OutcomeRow, write_outcomes
from router_model.training import train
from tests.router_model.encoders import build_encoder
from tests.router_model.worlds import QUICK, make_outcomes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_encoder(tmp_path_factory.mktemp("encoder"))


def test_an_embedding_is_the_mean_of_the_last_hidden_states(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    model = BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[1, 4, 5, 6, 2]])
    with torch.inference_mode():
        mean = model(ids).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(encoder(["check the weather"])[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_an_embedding_does_not_depend_on_the_other_texts(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    texts = ["check the weather", "the calendar and then the finance day check the day", ""]
    np.testing.assert_allclose(encoder(texts), np.concatenate([encoder([text]) for text in texts]), atol=1e-5)
    assert encoder([]).shape == (0, 16)


def test_a_long_text_is_read_at_both_ends(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    middle = " the" * 10 * MAX_TOKENS
    long, other_end = (encoder([f"check{middle} {word}"])[0] for word in ("weather", "finance"))
    assert not np.allclose(long, other_end, atol=1e-4)
    np.testing.assert_allclose(encoder([f"check{middle * 2} weather"])[0], long, atol=1e-5)


def test_a_router_can_learn_from_embeddings(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    outcomes = make_outcomes(300, with_state=False)
    model = train(outcomes, QUICK, encoder).model
    assert model.encoder.kind is Kind.EMBEDDING
    one = outcomes[0]
    features = extract(one.text, one.facts, embedding=encoder([one.text])[0])
    assert -1 <= model.predict([features]).score[0] <= 1
    with pytest.raises(ValueError, match="of kind embedding was given features of another kind"):
        model.predict([extract("hi", RequestFacts())])


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NoEncoder, match=r"lacks config\.json"):
        SentenceEncoder.load(tmp_path)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(NoEncoder, match="cannot be read"):
        SentenceEncoder.load(tmp_path)


def test_the_commands_train_and_score_a_router_on_embeddings(folder: Path, tmp_path: Path) -> None:
    rows = [
        OutcomeRow(
            id=one.id, group=one.group, prompt=one.text, weak_score=one.weak_score, strong_score=one.strong_score
        )
        for one in make_outcomes(120, with_state=False)
    ]
    data, router = tmp_path / "rows.jsonl", tmp_path / "router"
    write_outcomes(data, rows)
    report = commands.train([data], router, embedding_model=folder, show=lambda _: None)
    assert report.kind is Kind.EMBEDDING
    scored = commands.evaluate(router, [data], embedding_model=folder, show=lambda _: None)
    assert scored.n_rows == 120
    with pytest.raises(ValueError, match="embed"):
        commands.evaluate(router, [data], show=lambda _: None)
    with pytest.raises(NoEncoder):
        commands.train([data], router, embedding_model=tmp_path / "nothing", show=lambda _: None)
