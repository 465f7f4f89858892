"""The training-time model: packing changes nothing, and transformers reads what it exports."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from bundled_models import tokenizer as tokenizers_of
from bundled_models.generator import Generator
from bundled_models.model import Shape, TinyLlama, export
from bundled_models.packing import drill, encode, pack
from bundled_models.signature import SPECIAL_TOKENS


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers_of.train(groups=150)


@pytest.fixture(scope="module")
def model() -> TinyLlama:
    torch.manual_seed(1)
    model = TinyLlama(Shape(tokenizers_of.VOCABULARY, 128, 3, 2, 96))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def test_packed_logits_are_those_of_each_example_alone(model: TinyLlama, tokenizer: Tokenizer) -> None:
    generator = Generator(1)
    rows = [encode(tokenizer, generator.group(4)) for _ in range(4)]
    batch = pack(rows)
    with torch.no_grad():
        packed, at = model(batch), 0
        for row in rows:
            for turns, answer in row.branches:
                alone = model.logits(torch.tensor([row.preamble + turns + answer[:-1]]))[0, -len(answer) :]
                torch.testing.assert_close(packed[at : at + len(answer)], alone, atol=1e-4, rtol=1e-4)
                assert batch.target[at : at + len(answer)].tolist() == answer
                at += len(answer)
    assert at == len(batch.target)


def test_a_fresh_model_finds_what_followed_before(model: TinyLlama) -> None:
    torch.manual_seed(0)
    fresh = TinyLlama(model.shape)
    batch = drill(model.shape.vocabulary, 1000)
    known = batch.target >= 0
    with torch.no_grad():
        logits = fresh(batch)[known]
    gold = logits.gather(1, batch.target[known][:, None])
    assert (logits > gold).float().mean() < 0.35  # chance is 0.5; nothing has been trained yet


def test_transformers_computes_the_same_logits_from_the_export(model: TinyLlama, tmp_path: Path) -> None:
    export(model, tmp_path)
    rounded = TinyLlama(model.shape)
    rounded.load_state_dict({n: t.to(torch.bfloat16).float() for n, t in model.state_dict().items()})
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(16, 2000, (2, 70))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, rounded.logits(ids), atol=1e-4, rtol=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 1


def test_saved_tokenizer_loads_in_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizers_of.save(tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|>Book Oslo_2 for 3 nights, “naïve”<|assistant|>"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text).ids
    assert theirs.eos_token_id == 1
    assert [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    said = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert said == "<|user|>hi<|assistant|>"


def test_a_space_is_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    inside, alone = tokenizer.encode("from Paris on").ids, tokenizer.encode("Paris").ids
    assert any(inside[i : i + len(alone)] == alone for i in range(len(inside)))
